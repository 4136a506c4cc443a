import pytest
from test_schema import make_record

from bi_audio_dataset import migrations
from bi_audio_dataset.migrations import Step, check_upgradable, upgrade_row
from bi_audio_dataset.schema import UserError


@pytest.fixture
def steps(monkeypatch):
    """Two versions that never were: 0 had hfov_deg as "fov", the one before gave it as half of that."""
    made: dict[int, Step] = {}
    monkeypatch.setattr(migrations, "STEPS", made)

    @migrations.step(0, "fov is called hfov_deg")
    def zero(row):
        return {k: v for k, v in row.items() if k != "fov"} | {"hfov_deg": row["fov"]}

    @migrations.step(-1, "the whole angle, not half of it")
    def minus_one(row):
        return {k: v for k, v in row.items() if k != "half_fov"} | {"fov": 2 * row["half_fov"]}

    return made


def old_row(version: int) -> dict:
    row = make_record(hfov_deg=62.0).to_row() | {"schema_version": version}
    del row["hfov_deg"]
    return row | ({"half_fov": 31.0} if version == -1 else {"fov": 62.0})


@pytest.mark.parametrize("version", [-1, 0])
def test_a_row_goes_through_every_step_that_it_needs(steps, version):
    row = old_row(version)
    before = dict(row)
    assert upgrade_row(row) == make_record(hfov_deg=62.0).to_row()
    assert row == before  # the caller's row is its own


def test_a_row_of_this_version_stays(steps):
    row = make_record().to_row()
    assert upgrade_row(row) is row


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (99, "row 'a-0' has schema_version 99, this program writes 1: install a newer visaudio, or use the"),
        (
            -2,
            "row 'a-0' has schema_version -2, this program writes 1 and upgrades from -1 on: build it",
        ),
        (None, "row 'a-0' has schema_version None, this program writes 1: not rows of a BiAudio dataset"),
        (True, "has schema_version True"),
    ],
)
def test_versions_without_a_way_here_are_refused_in_one_line(steps, version, words):
    with pytest.raises(UserError) as error:
        upgrade_row(make_record().to_row() | {"schema_version": version})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_gap_between_steps_is_no_way(steps):
    del steps[0]
    with pytest.raises(UserError, match="upgrades from 1 on"):
        check_upgradable(-1, "'set'")
    check_upgradable(1, "'set'")


def test_what_is_no_whole_row_afterwards_is_refused(steps):
    with pytest.raises(UserError, match=r"no row of version 1 \(UserError: .*unknown columns \['extra'\]"):
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
    steps[0] = Step("breaks ids", lambda row: make_record(id="other").to_row())
    with pytest.raises(ValueError, match="changed one of"):
        upgrade_row(old_row(0))
