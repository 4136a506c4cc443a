"""Files and --set over a config: strictly, and with a hint."""

from dataclasses import dataclass, field

import pytest

from bi_audio_dataset.build_config import BuildConfig
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.settings import leaves, overlay, read_file, read_set


@dataclass(frozen=True)
class Inner:
    level: float = -35.0
    action: str = "reject"


@dataclass(frozen=True)
class Outer:
    count: int = 1
    share: float = 0.5
    fast: bool = False
    name: str | None = "x"
    span: tuple[float, float] = (1.0, 2.0)
    inner: Inner = field(default_factory=Inner)


def written(folder, text: str):
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_what_is_named_is_set_and_nothing_else(tmp_path):
    path = written(tmp_path, "count: 3\nshare: 1e-3\nname: null\nspan: [2, 4]\ninner:\n  action: off\n")
    assert overlay(Outer(), read_file(path), "f") == Outer(
        3, 0.001, False, None, (2.0, 4.0), Inner(action="off")
    )
    assert overlay(Outer(), read_file(written(tmp_path, "# nothing\n")), "f") == Outer()
    # a setting of a base that is not the class's default stays
    assert overlay(Outer(inner=Inner(level=-9.0)), {"inner": {"action": "mark"}}, "f").inner == Inner(
        -9.0, "mark"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cuont: 3", "f: there is no setting 'cuont': did you mean count?"),
        ("inner: {levle: 3}", "there is no setting 'inner.levle': did you mean level?"),
        ("zzz: 3", "expected one of count, share, fast, name, span, inner"),
        ("count: 2.5", "'count' is 2.5, expected a whole number"),
        ("count: true", "'count' is True, expected a whole number"),
        ("share: much", "'share' is 'much', expected a number"),
        ("fast: yes", "'fast' is 'yes', expected true or false"),
        ("name: 3", "'name' is 3, expected a word or text or null"),
        ("span: 3", "'span' is 3, expected 2 numbers in brackets"),
        ("span: [3, a]", "'span' is 'a', expected a number"),
        ("inner: 3", "'inner' is a group of settings (level, action), got 3"),
        ("inner: {action: false}", "'inner.action' is False, expected a word or text"),
    ],
)
def test_what_does_not_fit_is_told(text, words, tmp_path):
    with pytest.raises(UserError) as error:
        overlay(Outer(), read_file(written(tmp_path, text)), "f")
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "holds no settings"),
        ("word", "holds no settings"),
        ("a: [1", "is no valid YAML"),
        ("count: 1\ncount: 2", "'count' is set twice"),
        ("!!python/object/apply:os.getcwd []", "is no valid YAML"),
    ],
)
def test_files_that_are_no_settings(text, words, tmp_path):
    with pytest.raises(UserError, match="mine.yaml") as error:
        read_file(written(tmp_path, text))
    assert words in str(error.value) and "\n" not in str(error.value)
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no text"):
        read_file(tmp_path / "mine.yaml")


def test_set_makes_groups():
    found = read_set(["count=3", "inner.level=-40", "inner.action=off", "name=a.b:c", "span=[1, 5]"])
    assert found == {
        "count": 3,
        "inner": {"level": -40, "action": "off"},
        "name": "a.b:c",
        "span": [1, 5],
    }
    assert list(leaves(found)) == ["count", "inner.level", "inner.action", "name", "span"]
    assert overlay(Outer(), found, "--set").inner == Inner(-40.0, "off")


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["count"], "expected NAME=VALUE"),
        (["=3"], "expected NAME=VALUE"),
        (["inner.=3"], "expected NAME=VALUE"),
        (["count=1", "count=2"], "'count' is set twice"),
        (["inner=1", "inner.level=2"], "lies inside of what is set already"),
        (["span=[1"], "--set span is no valid YAML"),
    ],
)
def test_set_that_says_nothing_or_two_things(texts, words):
    with pytest.raises(UserError) as error:
        read_set(texts)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("clip_s", 0.1, "clip_s is 0.1, expected 0.5 to 600"),
        ("clip_s", float("nan"), "clip_s is nan, expected a finite number"),
        ("width", 255, "width is 255, expected an even number"),
        ("crf", 99, "crf is 99, expected 0 to 51"),
        ("preset", "quick", "preset is 'quick', expected one of ultrafast"),
        ("level_measure", "peak", "level_measure is 'peak', expected one of rms, lufs"),
        ("hfov_range_deg", [110, 50], "hfov_range_deg is 110 to 50, expected the lesser first"),
        ("hfov_fixed_deg", 175, "hfov_fixed_deg is 175, expected 10 to 170"),
        ("trajectory", {"hold_probability": 2}, "trajectory.hold_probability is 2, expected 0 to 1"),
        ("selection", {"silent": {"level_dbfs": 3}}, "selection.silent.level_dbfs is 3, expected -200 to 0"),
        ("selection", {"silent": {"action": "keep"}}, "filter 'silent' has action 'keep'"),
    ],
)
def test_numbers_have_limits_wherever_they_come_from(name, value, words):
    with pytest.raises(UserError) as error:
        overlay(BuildConfig(), {name: value}, "f")
    assert words in str(error.value)
    if not isinstance(value, (dict, list)):
        with pytest.raises(UserError, match="expected"):
            BuildConfig(**{name: value})


def test_every_number_has_a_range():
    """Less the names below, for which any finite number has a meaning."""
    from dataclasses import fields, is_dataclass

    from bi_audio_dataset.limits import RANGES

    def names(config):
        for entry in fields(config):
            value = getattr(config, entry.name)
            if is_dataclass(value):
                yield from names(value)
            elif isinstance(value, (int, float, tuple)) and not isinstance(value, bool):
                yield entry.name

    assert set(names(BuildConfig())) - set(RANGES) == {"max_seam", "max_seam_steps", "min_score"}
