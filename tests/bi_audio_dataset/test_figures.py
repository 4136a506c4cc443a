import fake_clips
import numpy as np
import pytest

from bi_audio_dataset.figures import HEAVY_COLUMNS, IN_VIEW, MEASURES, OUT_OF_VIEW, Figures

COUNT = round(fake_clips.DURATION_S * 25)


def light(clip: dict) -> dict:
    return {name: value for name, value in clip.items() if name not in HEAVY_COLUMNS}


@pytest.fixture(scope="module")
def clip() -> dict:
    return light(fake_clips.row("a-0", licence="CC0-1.0"))


def of(*rows: dict) -> Figures:
    figures = Figures()
    for row in rows:
        figures.add(row)
    return figures


def test_counts_and_hours_by_split_source_and_licence(clip):
    other = {"split": "test", "source_name": "film", "licence": "CC-BY-4.0", "duration_s": 4.0}
    figures = of(clip, clip, clip | other)
    assert figures.clips == {"train": 2, "test": 1}
    assert figures.split_seconds == {"train": pytest.approx(1.6), "test": 4.0}
    assert figures.seconds == pytest.approx(5.6)
    assert figures.origins == {("fake", "CC0-1.0"): 2, ("film", "CC-BY-4.0"): 1}
    assert figures.origin_seconds["film", "CC-BY-4.0"] == 4.0
    assert figures.licences == {"CC0-1.0": 2, "CC-BY-4.0": 1}


def test_values_that_were_not_measured_are_not_counted(clip):
    filters = {"direction_confidence": float("nan"), "lr_difference": None, "rms_dbfs": -31.0}
    figures = of(clip, clip | {"filters": filters, "hfov_deg": 62.0})
    assert {m.name: list(figures.values[m.name]) for m in MEASURES} == {
        "confidence": [0.5],
        "level": [-20.0, -31.0],
        "difference": [0.2],
        "hfov": [90.0, 62.0],
    }


def truth(**changes) -> dict:
    source = fake_clips.truth_source() | changes
    return {"truth": {"rate_hz": 25.0, "sources": [source]}}


def test_directions_are_counted_where_the_object_sounds_by_whether_it_is_in_view(clip):
    sounding = [0.0] * 5 + [-60.0] * (COUNT - 5)
    visible = [True] * 3 + [False] * (COUNT - 3)
    figures = of(clip | truth(lateral_deg=[35.0] * COUNT, envelope_db=sounding, visible=visible))
    at_35 = np.zeros(18, int)
    at_35[(35 + 90) // 10] = 1
    assert figures.lateral[IN_VIEW].tolist() == (3 * at_35).tolist()
    assert figures.lateral[OUT_OF_VIEW].tolist() == (2 * at_35).tolist()


def test_the_mirror_image_mirrors_the_directions(clip):
    lateral = np.random.default_rng(0).uniform(-89, 89, COUNT)
    given, mirrored = (of(clip | truth(lateral_deg=(s * lateral).tolist())) for s in (1, -1))
    assert given.lateral[IN_VIEW].sum() == COUNT
    assert mirrored.lateral[IN_VIEW].tolist() == given.lateral[IN_VIEW][::-1].tolist()


def test_rounding_beyond_90_degrees_is_not_lost(clip):
    figures = of(clip | truth(lateral_deg=[90.00001] * COUNT))
    assert figures.lateral[IN_VIEW][-1] == COUNT


def test_classes_and_off_screen_objects(clip):
    hidden = fake_clips.truth_source() | {"class_name": "bee", "visible": [False] * COUNT}
    both = {"truth": {"rate_hz": 25.0, "sources": [fake_clips.truth_source(), hidden]}}
    figures = of(clip | both, clip | truth(), clip)
    assert figures.classes == {("bell", "train"): 2, ("bee", "train"): 1}
    assert (figures.sources, figures.off_screen) == ({2: 1, 1: 1, 0: 1}, 1)
