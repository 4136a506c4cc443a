"""Intervals and tests against closed forms, scipy and a plain loop."""

import math

import numpy as np
import pytest
from plain_measures import Level

from visaudio.evaluation.intervals import (
    Both,
    compare,
    draws,
    figures_of,
    holm,
    p_bootstrap,
    p_spread,
    resample,
)
from visaudio.evaluation.measures import ClipSet, FigureSpec, Measure
from visaudio.evaluation.page.comparisons import verdict
from visaudio.evaluation.page.summary import marks
from visaudio.evaluation.results import Comparison, Figure


def clips(**rows) -> ClipSet:
    count = len(next(iter(rows.values())))
    return ClipSet(
        tuple(f"c{n:04d}" for n in range(count)), {k: np.asarray(v, float) for k, v in rows.items()}
    )


class Looped(Level):
    """The same means, through `summarise` one resample after the other."""

    def summarise(self, clips, index):
        return super().summarise(clips, index)


def test_products_give_what_summarise_gives_resample_by_resample():
    rng = np.random.default_rng(0)
    error = rng.normal(size=30)
    error[::4] = np.nan
    given = clips(level_error_db=error, ild_db=np.full(30, np.nan))
    fast, slow = (resample(measure, given, 100, seed=5) for measure in (Level(), Looped()))
    np.testing.assert_allclose(fast.resampled["level_error_db"], slow.resampled["level_error_db"], rtol=1e-12)
    assert np.isnan(fast.resampled["ild_db"]).all() and np.isnan(slow.resampled["ild_db"]).all()
    assert fast.values["level_error_db"] == slow.values["level_error_db"]
    assert fast.values["level_error_db"] == pytest.approx(np.nanmean(error))
    assert fast.clips == slow.clips == {"level_error_db": 22, "ild_db": 0}


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    """1.96 standard errors on each side; 4000 resamples know the ends to some 3 %."""
    values = np.random.default_rng(1).normal(2.0, 3.0, 400)
    found = figures_of(resample(Level(), clips(level_error_db=values), 4000))["level_error_db"]
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.high - values.mean() == pytest.approx(half, rel=0.08)
    assert values.mean() - found.low == pytest.approx(half, rel=0.08)
    assert found.clips == 400


class Distinct(Level):
    """How many clips there are, each counted once: every resample has fewer."""

    figures = (FigureSpec("distinct", "clips", per_clip=False, recentred=True),)

    def summarise(self, clips, index):
        return {"distinct": len(np.unique(index))}


def test_a_figure_that_repeated_clips_move_has_the_spread_as_its_interval():
    given = clips(level_error_db=np.zeros(50))
    found = resample(Distinct(), given, 1000)
    of_draws = np.array([len(np.unique(index)) for index in draws(50, 1000, 0)])
    assert of_draws.max() < 50 == found.values["distinct"]
    figure = figures_of(found)["distinct"]
    low, high = np.percentile(of_draws, [2.5, 97.5]) - of_draws.mean()
    assert (figure.low, figure.high) == pytest.approx((50 + low, 50 + high)) and low < 0 < high
    nothing = resample(Distinct(), clips(level_error_db=np.zeros(1)), 1000)
    assert math.isnan(figures_of(nothing)["distinct"].low)


def test_one_clip_has_no_interval_and_none_has_no_value():
    found = figures_of(resample(Level(), clips(level_error_db=[3.0])))["level_error_db"]
    assert (found.value, found.clips) == (3.0, 1) and math.isnan(found.low) and math.isnan(found.high)
    nothing = figures_of(resample(Level(), ClipSet((), {})))["level_error_db"]
    assert math.isnan(nothing.value) and nothing.clips == 0


def test_draws_depend_on_the_seed_and_the_number_of_clips_alone():
    first, again, other = (list(draws(9, 3, seed)) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_a_measure_says_how_many_resamples_it_can_afford():
    few = Level()
    few.resamples = 7
    assert resample(few, clips(level_error_db=[1, 2, 3]), 100).resampled["level_error_db"].shape == (7,)


def both(a: np.ndarray, b: np.ndarray, resamples: int = 1000) -> Both:
    sets = [clips(level_error_db=row, ild_db=np.zeros(len(row))) for row in (a, b)]
    return Both(Level(), *(resample(Level(), s, resamples) for s in sets), *sets)


def test_a_paired_difference_sees_what_unpaired_intervals_cannot():
    """Clips lie 10 dB apart, systems 0.2: the intervals overlap, and the difference is sure."""
    from scipy.stats import wilcoxon

    rng = np.random.default_rng(2)
    a = rng.normal(0, 10, 200)
    b = a - 0.2 + rng.normal(0, 0.1, 200)
    given = both(a, b)
    one, other = figures_of(given.a)["level_error_db"], figures_of(given.b)["level_error_db"]
    assert one.low < other.high and other.low < one.high
    error, ild = compare("a", "b", [given])
    assert error.difference.value == pytest.approx((a - b).mean())
    assert 0.18 < error.difference.low < error.difference.high < 0.22
    assert error.p_bootstrap == pytest.approx(2 / 1001)
    assert error.p_wilcoxon == wilcoxon(a, b).pvalue < 1e-30
    assert error.p_holm == error.p_wilcoxon  # the other figure has no direction
    assert (ild.difference.value, ild.p_bootstrap, ild.p_wilcoxon) == (0, 1, 1) and math.isnan(ild.p_holm)


def test_of_equal_systems_one_in_twenty_differs():
    """p below 0.05 in about 5 % of 100 draws, by either test; 14 is 4 standard deviations more."""
    rng = np.random.default_rng(3)
    found = [compare("a", "b", [both(*rng.normal(size=(2, 30)), resamples=200)])[0] for _ in range(100)]
    for name in ("p_bootstrap", "p_wilcoxon"):
        assert 1 <= sum(getattr(c, name) < 0.05 for c in found) <= 14


class Directed(Level):
    """Figures of clips and of all together, judged and descriptive; no clip has the last one."""

    figures = (
        FigureSpec("x", "x"),
        FigureSpec("y", "y", better="higher"),
        FigureSpec("pooled", "pooled", per_clip=False),
        FigureSpec("about", "about", better=""),
        FigureSpec("count", "count", better="", per_clip=False),
        FigureSpec("nothing", "nothing"),
    )

    def summarise(self, clips, index):
        pooled = float(clips.rows["x"][index].sum() / clips.rows["size"][index].sum())
        return super().summarise(clips, index) | {"pooled": pooled, "count": len(index)}


def directed(a: np.ndarray, b: np.ndarray, resamples: int = 100) -> Both:
    sets = []
    for row in (a, b):
        gone = np.where(np.arange(len(row)) < 3, np.nan, row)  # the first three clips have no y
        sets.append(clips(x=row, y=gone, about=row, size=np.ones(len(row))))
    return Both(Directed(), *(resample(Directed(), s, resamples) for s in sets), *sets)


def test_holm_is_over_figures_with_a_direction_each_by_the_test_that_it_has():
    a, b = np.random.default_rng(4).normal(size=(2, 40)) + [[0.7], [0]]
    found = {c.figure: c for c in compare("a", "b", [directed(a, b)])}
    assert [name for name, c in found.items() if math.isnan(c.p_wilcoxon)] == ["pooled", "count", "nothing"]
    judged = [found["x"].p_wilcoxon, found["y"].p_wilcoxon, found["pooled"].p_bootstrap]
    assert [found[name].p_holm for name in ("x", "y", "pooled")] == holm(judged)
    assert all(math.isnan(found[name].p_holm) for name in ("about", "count", "nothing"))
    assert [c.difference.clips for c in found.values()] == [40, 37, 40, 40, 40, 0]


def test_a_figure_of_all_clips_can_be_told_apart_among_many_with_100_resamples():
    """By counting, 100 resamples give no p below 0.02, too much for Holm over three figures."""
    a = np.random.default_rng(5).normal(size=60)
    given = directed(a + 3, a + 0.5 * np.random.default_rng(6).normal(size=60))
    pooled = {c.figure: c for c in compare("a", "b", [given])}["pooled"]
    assert p_bootstrap(given.a.resampled["pooled"] - given.b.resampled["pooled"]) > 0.05 / 3
    assert pooled.p_bootstrap < pooled.p_holm < 1e-6


def test_the_spread_of_resamples_gives_the_p_of_a_paired_t_test():
    """Of a mean it is scipy's, to what 4000 resamples know of the spread; equal systems differ in 1 of 20."""
    from scipy.stats import ttest_rel

    a, b = np.random.default_rng(7).normal(size=(2, 200)) + [[0.15], [0]]
    given = directed(a, b, 4000)
    found = {c.figure: c for c in compare("a", "b", [given])}["pooled"]
    assert found.p_bootstrap == pytest.approx(ttest_rel(a, b).pvalue, rel=0.15)
    rng = np.random.default_rng(8)
    equal = [compare("a", "b", [directed(*rng.normal(size=(2, 12)))])[2].p_bootstrap for _ in range(100)]
    assert 1 <= sum(p < 0.05 for p in equal) <= 14
    assert p_spread(0.0, np.zeros(100), 9) == 1 and p_spread(1.0, np.ones(100), 9) == pytest.approx(2 / 101)
    assert math.isnan(p_spread(1.0, np.array([1.0]), 9)) and math.isnan(p_spread(1.0, np.arange(9.0), 1))


# -------------------- a verdict never names the wrong system


class PerFrame(Level):
    """Error over all frames of all clips, and its mean over clips."""

    figures = (FigureSpec("pooled_db", "error", "dB"), FigureSpec("mean_db", "mean error", "dB"))

    def summarise(self, clips, index):
        frames = clips.rows["frames"][index]
        return super().summarise(clips, index) | {
            "pooled_db": float((clips.rows["pooled_db"][index] * frames).sum() / frames.sum())
        }


def per_frame(errors_a, errors_b, frames, resamples: int = 1000) -> list[Comparison]:
    sets = [clips(pooled_db=row, mean_db=row, frames=frames) for row in (errors_a, errors_b)]
    measure = PerFrame()
    return compare("a", "b", [Both(measure, *(resample(measure, s, resamples) for s in sets), *sets)])


def test_many_clips_do_not_outvote_the_pooled_figure():
    """a is better by 1 dB on 59 of 60 clips; a long one makes it 5 dB worse over all frames."""
    frames = np.where(np.arange(60) < 59, 10, 4000)
    b = np.full(60, 5.0) + np.linspace(0, 1, 60)
    a = b + np.where(np.arange(60) < 59, -1, 6.5)
    pooled, mean = per_frame(a, b, frames)
    assert pooled.difference.value == pytest.approx((4000 * 6.5 - 590) / 4590)
    assert pooled.difference.low == pytest.approx(-1) and pooled.p_wilcoxon < 1e-8
    assert pooled.p_bootstrap == pytest.approx(2 * (1 - 1 / 60) ** 60, rel=0.1)  # the long one is not drawn
    assert pooled.p_holm == pooled.p_bootstrap and verdict(pooled, PerFrame.figures[0]) == ""
    # over clips a is the better one indeed, by the mean and by the ranks
    assert mean.difference.value == pytest.approx((6.5 - 59) / 60)
    assert mean.p_holm < 1e-7 and verdict(mean, PerFrame.figures[1]) == "a"


def test_nor_the_mean_over_clips():
    """The same where one clip makes the mean: by ranks a is better, by the mean b."""
    b = np.linspace(0, 1, 60)
    a = b + np.where(np.arange(60) < 59, -1, 100)
    _, mean = per_frame(a, b, np.ones(60))
    assert mean.difference.value > 0 and mean.p_wilcoxon < 1e-8
    assert mean.p_holm == 1 and verdict(mean, PerFrame.figures[1]) == ""
    assert marks({"a": mean.difference, "b": Figure(0, 0, 0, 60)}, PerFrame.figures[1], [mean]) == {
        "a": "near",
        "b": "best",
    }


def test_a_pooled_difference_that_all_frames_show_is_a_verdict():
    rng = np.random.default_rng(9)
    b = rng.normal(5, 1, 60)
    a = b + 1 + rng.normal(0, 0.5, 60)
    found = per_frame(a, b, rng.integers(5, 50, 60))
    assert [verdict(c, spec) for c, spec in zip(found, PerFrame.figures, strict=True)] == ["b", "b"]
    assert found[0].p_holm < 1e-6  # below what counting 1000 resamples can give


def test_which_figures_are_means_is_seen_from_their_resamples():
    values = np.random.default_rng(10).normal(size=20)
    given = clips(pooled_db=values, mean_db=values, frames=np.arange(20) + 1)
    assert resample(PerFrame(), given, 50).means == {"mean_db"}
    equal = clips(pooled_db=values, mean_db=values, frames=np.full(20, 7))
    assert resample(PerFrame(), equal, 50).means == {"mean_db", "pooled_db"}


@pytest.mark.parametrize("measure", [Level(), Looped()])
def test_a_difference_of_means_is_over_the_clips_of_both(measure):
    """b has no value for the ten hard clips: its mean is lower, and yet it is 1 dB worse wherever both have
    one."""
    a = np.random.default_rng(11).normal(3, 0.1, 50) + 10 * (np.arange(50) < 10)
    b = np.where(np.arange(50) < 10, np.nan, a + 1)
    sets = [clips(level_error_db=row, ild_db=np.zeros(50)) for row in (a, b)]
    given = Both(measure, *(resample(measure, s, 200) for s in sets), *sets)
    assert given.a.values["level_error_db"] > given.b.values["level_error_db"]
    error = compare("a", "b", [given])[0]
    assert error.difference.clips == 40
    assert (error.difference.value, error.difference.low, error.difference.high) == pytest.approx((-1,) * 3)
    assert error.p_bootstrap == pytest.approx(2 / 201) and error.p_wilcoxon < 1e-8
    assert error.p_holm == 1  # the table shows b's mean as the lower one: no verdict against it


def test_what_cannot_be_tested_is_nan():
    (error, _) = compare("a", "b", [both(np.array([1.0]), np.array([2.0]))])
    assert error.difference.value == -1
    assert all(math.isnan(p) for p in (error.p_bootstrap, error.p_wilcoxon, error.p_holm))
    with pytest.raises(ValueError, match="different clips"):
        given = both(np.ones(2), np.ones(2))
        compare("a", "b", [Both(given.measure, given.a, given.b, given.clips_a, clips(level_error_db=[1.0]))])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, float("nan"), 0.005]) == pytest.approx(
        [0.03, 0.06, 0.06, float("nan"), 0.02], nan_ok=True
    )
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_bootstrap_p_is_two_sided_and_never_0():
    assert p_bootstrap(np.linspace(1, 2, 999)) == pytest.approx(0.002)
    assert p_bootstrap(-np.linspace(1, 2, 999)) == pytest.approx(0.002)
    assert p_bootstrap(np.linspace(-1, 1, 1000)) == 1.0


def test_many_figures_are_not_summed_up_resample_by_resample(monkeypatch):
    """1000 resamples of 60 figures over 1000 clips as matrix products: `summarise` itself is called once."""
    rows = {f"f{n}": np.random.default_rng(n).normal(size=1000) for n in range(60)}
    calls, original = [], Measure.summarise

    def counted(self, clips, index):
        calls.append(len(index))
        return original(self, clips, index)

    class Many(Level):
        figures = tuple(FigureSpec(name, name) for name in rows)

    monkeypatch.setattr(Measure, "summarise", counted)
    found = resample(Many(), clips(**rows))
    assert calls == [1000]
    spread = found.resampled["f59"]
    assert len(set(spread)) > 990 and spread.std() == pytest.approx(1000**-0.5, rel=0.1)
