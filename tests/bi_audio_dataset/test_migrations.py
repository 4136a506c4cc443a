import pytest
from test_schema import make_record

from bi_audio_dataset import migrations
from bi_audio_dataset.migrations import Step, check_upgradable, upgrade_row
from bi_audio_dataset.schema import Direction, UserError


@pytest.fixture
def steps(monkeypatch):
    """Two versions that never were: 0 had hfov_deg as "fov", the one before gave it as half of that; and the
    real step from 1 on."""
    made = dict(migrations.STEPS)
    monkeypatch.setattr(migrations, "STEPS", made)

    @migrations.step(0, "fov is called hfov_deg")
    def zero(row, said):
        return {k: v for k, v in row.items() if k != "fov"} | {"hfov_deg": row["fov"]}

    @migrations.step(-1, "the whole angle, not half of it")
    def minus_one(row, said):
        return {k: v for k, v in row.items() if k != "half_fov"} | {"fov": 2 * row["half_fov"]}

    return made


def old_row(version: int) -> dict:
    row = make_record(hfov_deg=62.0).to_row() | {"schema_version": version}
    del row["hfov_deg"], row["direction"]
    return row | ({"half_fov": 31.0} if version == -1 else {"fov": 62.0})


@pytest.mark.parametrize("version", [-1, 0])
def test_a_row_goes_through_every_step_that_it_needs(steps, version):
    row = old_row(version)
    before = dict(row)
    said = {"direction": {"azimuth_deg": 30.5, "elevation_deg": -4.0, "confidence": 0.5}}
    assert upgrade_row(row, said) == make_record(hfov_deg=62.0).to_row()
    assert row == before  # the caller's row is its own


def test_a_row_of_this_version_stays(steps):
    row = make_record().to_row()
    assert upgrade_row(row) is row


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (99, "row 'a-0' has schema_version 99, this program writes 2: install a newer visaudio, or use the"),
        (
            -2,
            "row 'a-0' has schema_version -2, this program writes 2 and upgrades from -1 on: build it",
        ),
        (None, "row 'a-0' has schema_version None, this program writes 2: not rows of a BiAudio dataset"),
        (True, "has schema_version True"),
    ],
)
def test_versions_without_a_way_here_are_refused_in_one_line(steps, version, words):
    with pytest.raises(UserError) as error:
        upgrade_row(make_record().to_row() | {"schema_version": version})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_version_1_gets_its_direction_from_the_manifest():
    said = {"azimuth_deg": 30.5, "elevation_deg": -4.0, "confidence": 0.75}
    rows = [{"kind": "recording", "id": "a"}, {"kind": "clip", "id": "b"}]
    clip = {"kind": "clip", "id": "a-0", "licence": "x", "direction": said | {"elsewhere": True}}
    known = migrations.manifest_values([*rows, clip])
    assert known == {"b": {}, "a-0": {"direction": clip["direction"]}}
    row = make_record().to_row() | {"schema_version": 1}
    del row["direction"]
    assert upgrade_row(row, known["a-0"]) == make_record(direction=Direction(30.5, -4.0, 0.75)).to_row()
    for nothing in (None, {}, {"direction": None}):
        assert upgrade_row(row, nothing) == make_record(direction=None).to_row()
    with pytest.raises(UserError, match="of schema_version 1 makes no row of version 2"):
        upgrade_row(row, {"direction": {"azimuth_deg": 30.5}})


def test_a_gap_between_steps_is_no_way(steps):
    del steps[1]
    with pytest.raises(UserError, match="upgrades from 2 on"):
        check_upgradable(-1, "'set'")
    check_upgradable(2, "'set'")


def test_what_is_no_whole_row_afterwards_is_refused(steps):
    with pytest.raises(UserError, match=r"no row of version 2 \(UserError: .*unknown columns \['extra'\]"):
        upgrade_row(old_row(0) | {"extra": 1})
    lacking = old_row(0)
    del lacking["fov"]
    with pytest.raises(UserError, match="KeyError: 'fov'"):
        upgrade_row(lacking)
    lacking = old_row(0)
    del lacking["licence"]
    with pytest.raises(UserError, match=r"lacks the columns \['licence'\]"):
        upgrade_row(lacking)


def test_a_step_may_not_rename_clips_nor_be_registered_twice(steps):
    with pytest.raises(ValueError, match="registered twice"):
        migrations.step(0, "again")(dict)
    steps[0] = Step("breaks ids", lambda row, said: make_record(id="other").to_row())
    with pytest.raises(ValueError, match="changed one of"):
        upgrade_row(old_row(0))
