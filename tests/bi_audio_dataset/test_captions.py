import pytest

from bi_audio_dataset.captions import UNKNOWN, compose, parse, problem, tidy


@pytest.mark.parametrize(
    ("visible", "invisible", "expected"),
    [
        (["a brass bell"], [], "Visible sound: a brass bell, Invisible sound: none"),
        ([], ["a bee"], "Visible sound: none, Invisible sound: a bee"),
        (["a bell", "a drum"], ["a bee"], "Visible sound: a bell and a drum, Invisible sound: a bee"),
        (["a", "b", "c"], [], "Visible sound: a, b and c, Invisible sound: none"),
        (["a bell", " a bell "], [""], "Visible sound: a bell, Invisible sound: none"),
        ([], [], "Visible sound: none, Invisible sound: none"),
    ],
)
def test_form(visible, invisible, expected):
    assert compose(visible, invisible) == expected
    assert problem(expected) is None


def test_parse_takes_both_sides_apart():
    assert parse(compose(["a bell", "a drum"], ["a bee"])) == ("a bell and a drum", "a bee")
    assert parse(compose(["a bell, then a drum"], ["rain"])) == ("a bell, then a drum", "rain")
    assert parse(UNKNOWN) == ("", "")


def test_parse_refuses_another_form():
    with pytest.raises(ValueError, match="a dog barks"):
        parse("a dog barks")


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        (None, "NoneType"),
        ("", "not of the form"),
        ("Visible sound: a bell", "not of the form"),
        ("visible sound: a bell, Invisible sound: none", "not of the form"),
        ("Visible sound: a bell; Invisible sound: none", "not of the form"),
        ("Visible sound: a bell, Invisible sound: ", "not of the form"),
        ("Visible sound: a bell, Invisible sound: none\n", "more than one line"),
        ("Visible sound: a  bell, Invisible sound: none", "spare spaces"),
        ("Visible sound: a bell, Invisible sound: none ", "spare spaces"),
        ("Visible sound: a, Invisible sound: b, Invisible sound: c", "repeated"),
        ("Visible sound: Visible sound: a, Invisible sound: b", "repeated"),
        ("Visible sound: ..., Invisible sound: rain", "says nothing"),
        ("Visible sound: a bell, Invisible sound: None", "written 'none'"),
        ("Visible sound: N/A, Invisible sound: a bee", "written 'none'"),
        ("Visible sound: <a bell>, Invisible sound: none", "brackets"),
        ("Visible sound: a bell, Invisible sound: rain.", "ends with '.'"),
        (f"Visible sound: {'a' * 401}, Invisible sound: none", "401 characters"),
    ],
)
def test_the_validator_names_the_fault(caption, words):
    assert words in problem(caption)


def test_words_that_only_look_like_an_empty_side_are_kept():
    assert problem("Visible sound: nothing but wind, Invisible sound: none of the birds") is None


BELL = "Visible sound: a brass bell, Invisible sound: wind in trees"


@pytest.mark.parametrize(
    "raw",
    [
        BELL,
        f"  {BELL}.\n",
        f'"{BELL}."',
        f"```text\n{BELL}\n```",
        f"Here is the caption:\n\n{BELL}\n\nIt names the bell first.",
        f"{BELL}\nNote: the wind is faint.",
        "**Visible sound:** a brass bell, **Invisible sound:** wind in trees",
        "Visible sounds: a brass bell\nInvisible sounds: wind in trees",
        "VISIBLE SOUND: <a brass bell>; INVISIBLE SOUND: <wind in trees>",
        f"<think>Visible sound: a drum, Invisible sound: none?</think>{BELL}",
        f"Visible sound: draft, Invisible sound: draft. Better:\n{BELL}",
    ],
)
def test_tidy_takes_off_what_models_write_around(raw):
    assert tidy(raw) == BELL


@pytest.mark.parametrize("word", ["None", "n/a", "nothing", "No sound.", ""])
def test_tidy_writes_none_for_an_empty_side(word):
    assert (
        tidy(f"Visible sound: a bell, Invisible sound: {word}")
        == "Visible sound: a bell, Invisible sound: none"
    )


@pytest.mark.parametrize("raw", ["a dog barks", "Visible sound: a bell", "I cannot help with that.", ""])
def test_tidy_invents_nothing(raw):
    assert tidy(raw) == raw
    assert problem(tidy(raw)) is not None
