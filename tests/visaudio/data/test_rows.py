import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import open_dataset
from visaudio.data.rows import TableRows, open_rows


def test_rows_are_those_of_datasets_in_their_order(fake_biaudio):
    rows, table = open_rows(fake_biaudio), open_dataset(fake_biaudio)
    assert rows.ids == table["id"][:] and len(rows) == 4
    for index in (3, 0, 2):
        for name in ("id", "caption", "hfov_deg", "truth", "video", "audio"):
            assert rows[index][name] == table[index][name], name


def test_splits_and_another_process(fake_biaudio):
    rows = open_rows(fake_biaudio, ["validation"])
    rows[0]
    sent = pickle.dumps(rows)
    assert rows.ids == ["fake-003"] and len(sent) < 1000
    assert pickle.loads(sent)[0]["video"] == rows[0]["video"]
    with pytest.raises(UserError, match="has no rows in splits test"):
        open_rows(fake_biaudio, ["test"])


def test_missing_columns_are_named(fake_biaudio, tmp_path):
    table = pq.read_table(next((fake_biaudio / "data").glob("train-*.parquet")))
    pq.write_table(table.drop_columns(["hfov_deg", "audio"]), tmp_path / "train-0.parquet")
    with pytest.raises(UserError, match="lacks the columns audio, hfov_deg of a BiAudio dataset") as caught:
        open_rows(tmp_path)
    assert "\n" not in str(caught.value) and "expected at least schema_version, id" in str(caught.value)
    pq.write_table(table.drop_columns(["truth"]), tmp_path / "train-0.parquet")
    assert "truth" not in open_rows(tmp_path)[0]


def test_rows_of_another_version_are_refused_at_the_start(fake_biaudio, tmp_path):
    table = pq.read_table(next((fake_biaudio / "data").glob("train-*.parquet")))
    place = table.column_names.index("schema_version")
    kind = table.schema.field(place).type
    pq.write_table(
        table.set_column(place, "schema_version", pa.array([99] * len(table), kind)), tmp_path / "a.parquet"
    )
    with pytest.raises(UserError, match="a.parquet' has schema_version 99, this program reads"):
        open_rows(tmp_path)


def test_a_hub_repositorys_table_gives_the_same_rows(fake_biaudio):
    table, rows = TableRows(open_dataset(fake_biaudio)), open_rows(fake_biaudio)
    assert table.ids == rows.ids and len(table) == len(rows)
    there, here = pickle.loads(pickle.dumps(table))[2], rows[2]
    assert {name: there[name] for name in here} == here


def test_a_damaged_file_is_one_line(fake_biaudio, tmp_path):
    whole = next((fake_biaudio / "data").glob("train-*.parquet")).read_bytes()
    (tmp_path / "train-0.parquet").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="train-0.parquet cannot be read as Parquet") as caught:
        open_rows(tmp_path)
    assert "\n" not in str(caught.value)
