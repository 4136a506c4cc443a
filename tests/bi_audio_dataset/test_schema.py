import dataclasses

import numpy as np
import pytest

from bi_audio_dataset import schema
from bi_audio_dataset.schema import (
    CameraTrack,
    ClipRecord,
    Direction,
    Filters,
    SourceView,
    TruthTrack,
    UserError,
)


def make_record(**changes) -> ClipRecord:
    count = 20
    azimuth = np.linspace(-30, 30, count)
    view = SourceView(
        class_name="bell",
        member="brass",
        caption="a brass bell",
        azimuth_deg=tuple(azimuth),
        elevation_deg=(0.0,) * count,
        lateral_deg=tuple(azimuth),
        distance_m=(2.0,) * count,
        size_deg=(10.0,) * count,
        visible=(True,) * count,
        onset_s=(0.1,),
        envelope_db=(0.0,) * count,
    )
    record = ClipRecord(
        id="a-0",
        recording_id="a",
        split="train",
        video=b"video",
        audio=b"audio",
        caption="Visible sound: a brass bell, Invisible sound: none",
        duration_s=0.8,
        width=64,
        height=36,
        fps=25.0,
        hfov_deg=90.0,
        camera=CameraTrack(25.0, (0.0,) * count, (0.0,) * count, (0.0,) * count),
        truth=TruthTrack(sources=(view,)),
        hrir_set="spherical_head",
        hrir_symmetric=True,
        room="",
        source_name="test",
        provenance="test",
        licence="CC0-1.0",
        filters=Filters(0.1, 0.5, 3.0, -20.0, -3.0),
        direction=Direction(30.5, -4.0, 0.5),
    )
    return dataclasses.replace(record, **changes)


def with_view(record: ClipRecord, **changes) -> ClipRecord:
    view = dataclasses.replace(record.truth.sources[0], **changes)
    return dataclasses.replace(record, truth=TruthTrack(sources=(view,)))


def test_row_and_back_is_the_same_record():
    record = make_record()
    assert ClipRecord.from_row(record.to_row()) == record


@pytest.mark.parametrize("direction", [Direction(30.5, -4.0, 0.5), None])
def test_row_passes_through_arrow_with_typed_columns(direction):
    import pyarrow as pa

    known = Filters(0.25, 0.5, 3.0, -20.0, -3.0)
    record = make_record(filters=known, duration_s=0.5, hfov_deg=62.5, direction=direction)
    table = pa.Table.from_pylist([record.to_row()], schema=schema.features().arrow_schema)
    back = ClipRecord.from_row(table.to_pylist()[0])
    assert back.video == b"video"
    assert (back.filters, back.duration_s, back.hfov_deg) == (record.filters, 0.5, 62.5)
    assert back.direction == direction
    assert tuple(table.column_names) == schema.COLUMNS


def test_audio_states_its_two_channels_where_datasets_can(monkeypatch):
    import datasets

    typed = schema.features()["audio"]
    known = "num_channels" in {f.name for f in dataclasses.fields(datasets.Audio)}
    assert (typed.sampling_rate, getattr(typed, "num_channels", None)) == (44100, 2 if known else None)

    @dataclasses.dataclass
    class OldAudio:
        sampling_rate: int
        decode: bool = True

    monkeypatch.setattr(datasets, "Audio", OldAudio)
    monkeypatch.setattr(datasets, "Features", dict)
    assert schema.features()["audio"] == OldAudio(44100, decode=False)


def test_sound_row_has_no_problems():
    assert schema.validate_row(make_record().to_row()) == []
    assert schema.validate_row(make_record(truth=TruthTrack(), direction=None).to_row()) == []


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (make_record(split="dev"), "split is 'dev'"),
        (make_record(licence=""), "licence is empty"),
        (make_record(hfov_deg=200.0), "hfov_deg is 200"),
        (make_record(duration_s=1.6), "camera.yaw_deg has 20 entries, expected 40"),
        (make_record(filters=Filters(float("nan"), 0, 0, 0, 0)), "filters.lr_difference is nan"),
        (make_record(filters=Filters(0, 0, None, 0, 0)), "filters.level_gain_db is None"),
        (make_record(fps=None), "fps is None"),
        (make_record(hfov_deg=None), "hfov_deg is None"),
        (make_record(direction=Direction(181.0, 0, 0.5)), "direction.azimuth_deg is 181.0, expected -180 to"),
        (make_record(direction=Direction(0, float("nan"), 0.5)), "direction.elevation_deg is nan"),
        (make_record(direction=Direction(0, 0, None)), "direction.confidence is None, expected 0 to 1"),
        (with_view(make_record(), onset_s=(0.9,)), "onset_s holds 0.900"),
        (with_view(make_record(), distance_m=(float("inf"),) * 20), "distance_m is not finite"),
        (with_view(make_record(), elevation_deg=(95.0,) * 20), "elevation_deg leaves"),
        (with_view(make_record(), lateral_deg=(0.0,) * 20), "lateral_deg does not follow"),
        (with_view(make_record(hfov_deg=40.0)), "visible is true in 8 frames outside"),
    ],
)
def test_each_fault_is_named(record, word):
    problems = schema.validate_row(record.to_row())
    assert any(word in problem for problem in problems), problems


def test_another_schema_version_is_refused():
    row = make_record().to_row() | {"schema_version": 99}
    with pytest.raises(UserError, match="schema_version 99, this program reads 2"):
        ClipRecord.from_row(row)


def test_an_older_version_is_read_by_what_does_without_its_new_columns():
    for version in (1, 2):
        schema.check_readable(version, "row 'a'")
    with pytest.raises(
        UserError, match="row 'a' has schema_version 1, this program reads 2: .* upgrade FOLDER"
    ):
        schema.check_version(1, "row 'a'")
    for version in (0, 3, True, None, "1"):
        with pytest.raises(UserError, match="this program reads 2"):
            schema.check_readable(version, "row 'a'")


@pytest.mark.parametrize("hfov_deg", [50.0, 90.0, 110.0])
def test_view_ends_where_the_lens_says(hfov_deg):
    edge = np.radians(hfov_deg / 2)
    azimuth = np.array([0, edge - 0.01, -edge + 0.01, edge + 0.01, -edge - 0.01, np.pi])
    seen = schema.in_view(azimuth, np.zeros(6), hfov_deg, 16 / 9)
    assert seen.tolist() == [True, True, True, False, False, False]
    top = np.arctan(np.tan(edge) * 9 / 16)
    assert schema.in_view(np.zeros(2), np.array([top - 0.01, top + 0.01]), hfov_deg, 16 / 9).tolist() == [
        True,
        False,
    ]


def test_truth_of_unequal_lengths_is_refused():
    track = np.zeros(5)
    with pytest.raises(ValueError, match="one length"):
        schema.SourceTruth("c", "m", "a c", "sprite", track, track, track, np.zeros(4), (), track)
