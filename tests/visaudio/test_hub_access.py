import errno

import pytest

from bi_audio_dataset.schema import UserError
from visaudio import hub_access


@pytest.mark.parametrize(
    "secret",
    ["hf_abcDEF123", "https://ann:password1@hub.example/x", "Authorization: Bearer s3cr3t", "own-token-9"],
)
def test_secrets_are_taken_out(monkeypatch, secret):
    monkeypatch.setenv("HF_TOKEN", "own-token-9")
    said = hub_access.redacted(f"GET failed\nwith {secret} there")
    assert said.startswith("GET failed with ") and said.endswith(" there") and "***" in said
    assert not any(word in said for word in ("abcDEF123", "password1", "s3cr3t", "own-token-9"))


def test_errors_of_the_library_are_one_line():
    with pytest.raises(UserError, match="^model 'a/b': KeyError: 'x hf") as caught:
        with hub_access.asking("model 'a/b'"):
            raise KeyError("x hf")
    assert caught.value.__cause__ is not None
    with pytest.raises(UserError, match="^model 'a/b': the disk is full$"):
        with hub_access.asking("model 'a/b'"):
            raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="^said before$"):
        with hub_access.asking("model 'a/b'"):
            raise UserError("said before")
    with pytest.raises(KeyboardInterrupt):
        with hub_access.asking("model 'a/b'"):
            raise KeyboardInterrupt


def test_the_commit_of_a_cached_file(tmp_path):
    file = tmp_path / "snapshots" / ("ab" * 20) / "sub" / "w.pth"
    assert hub_access.commit_of(file, "sub/w.pth") == "ab" * 20
    with pytest.raises(UserError, match="expected it in a snapshot"):
        hub_access.commit_of(tmp_path / "w.pth", "w.pth")


def test_headers_of_cards(tmp_path):
    card = tmp_path / "README.md"
    for text, header in (
        ("---\nlicense: mit\n---\n# A", {"license": "mit"}),
        ("# A\n---\nlicense: mit\n---\n", {}),
        ("---\n- a\n---\n", {}),
        ("", {}),
    ):
        card.write_text(text)
        assert hub_access.header_of(card) == header
    card.write_text("---\na: [\n---\n")
    with pytest.raises(UserError, match="its header is not valid YAML"):
        hub_access.header_of(card)
