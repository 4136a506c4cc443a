import pytest

from bi_audio_dataset.caption_files import read_caption_file
from bi_audio_dataset.schema import UserError

IDS = ["a", "b", "c", "d"]
BELL = "Visible sound: a bell, Invisible sound: none"
RAIN = "Visible sound: none, Invisible sound: rain, then wind"


def written(folder, name, text):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_csv_with_a_byte_order_mark_other_columns_and_windows_lines(tmp_path):
    text = f'\ufeffnote, caption ,id\r\nx,"{BELL}",a\r\n\r\ny," {RAIN} ",c\r\n'
    found, problems = read_caption_file(written(tmp_path, "c.csv", text), IDS)
    assert problems == []
    assert found == {"a": BELL, "c": RAIN}


def test_jsonl(tmp_path):
    text = f'{{"id": "b", "caption": "{BELL}", "by": "me"}}\n\n{{"caption": "{RAIN}", "id": "d"}}'
    found, problems = read_caption_file(written(tmp_path, "c.jsonl", text), IDS)
    assert problems == []
    assert found == {"b": BELL, "d": RAIN}


def test_each_bad_row_of_a_csv_is_one_line_with_its_number(tmp_path):
    text = "\n".join(
        [
            "id,caption",
            f'a,"{BELL}"',
            f'x,"{BELL}"',
            f'a,"{RAIN}"',
            f"b,{BELL}",
            "c,a dog barks",
            f',"{BELL}"',
            f'd,"{RAIN}"',
            "",
        ]
    )
    found, problems = read_caption_file(written(tmp_path, "c.csv", text), IDS)
    assert found == {"a": BELL, "d": RAIN}
    expected = [
        "3: unknown id 'x'",
        "4: id 'a' again, it stands in line 2",
        "5: 3 cells",
        "6: caption of 'c'",
        "7: 'id'",
    ]
    assert len(problems) == len(expected)
    for problem, words in zip(problems, expected, strict=True):
        assert problem.startswith("c.csv:" + words)
        assert "\n" not in problem


def test_each_bad_row_of_jsonl_is_one_line_with_its_number(tmp_path):
    rows = ["{", "[1]", '{"id": 3, "caption": ""}', '{"id": "a"}', f'{{"id": "b", "caption": "{BELL}"}}']
    rows += [f'{{"id": "b", "caption": "{BELL}"}}', f'{{"id": "q", "caption": "{BELL}"}}']
    found, problems = read_caption_file(written(tmp_path, "c.jsonl", "\n".join(rows)), IDS)
    assert found == {"b": BELL}
    numbers = [problem.split(":")[1] for problem in problems]
    assert numbers == ["1", "2", "3", "4", "6", "7"]
    assert "not a JSON object" in problems[1] and "no caption" in problems[3] and "again" in problems[4]


def test_an_id_that_was_refused_once_still_counts_as_given(tmp_path):
    text = f'id,caption\na,a dog\na,"{BELL}"\n'
    found, problems = read_caption_file(written(tmp_path, "c.csv", text), IDS)
    assert found == {} and len(problems) == 2


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.txt", "id,caption", "a caption file is .csv or .jsonl"),
        ("c.csv", "name,caption\n", "must name the columns id and caption"),
        ("c.csv", "id,id,caption\n", "once each"),
        ("c.csv", "", "must name the columns"),
        ("c.csv", "id,caption\n", "holds no captions"),
        ("c.jsonl", "\n", "holds no captions"),
        ("c.csv", b"id,caption\na,\xff\n", "not UTF-8 text"),
    ],
)
def test_files_that_cannot_be_read_at_all(tmp_path, name, text, words):
    with pytest.raises(UserError, match=words):
        read_caption_file(written(tmp_path, name, text), IDS)


def test_an_unclosed_quote_is_named(tmp_path):
    found, problems = read_caption_file(
        written(tmp_path, "c.csv", f'id,caption\na,"{BELL}"\nb,"Visible'), IDS
    )
    assert found == {"a": BELL}
    assert len(problems) == 1 and "not CSV" in problems[0]
