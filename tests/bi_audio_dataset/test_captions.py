import pytest

from bi_audio_dataset.captions import compose, parse


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


def test_parse_takes_both_sides_apart():
    assert parse(compose(["a bell", "a drum"], ["a bee"])) == ("a bell and a drum", "a bee")
    assert parse(compose([], [])) == ("", "")


def test_parse_refuses_another_form():
    with pytest.raises(ValueError, match="a dog barks"):
        parse("a dog barks")
