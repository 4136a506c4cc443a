"""Texts of a manifest: what belongs to one machine is taken out, the rest stays as it is."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from bi_audio_dataset.sources.folder import FolderSource
from bi_audio_dataset.texts import folders_of, without_paths, without_places

FOLDER = Path("/mnt/x/my films")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("/mnt/x/my films/a.mp4: the file is empty", "a.mp4: the file is empty"),
        ("/mnt/x/my films/sub/a.mp4: cut", "sub/a.mp4: cut"),
        ("'/mnt/x/my films' is not a folder", "the folder is not a folder"),
        ("'films' holds no video", "the folder holds no video"),
        ("'/mnt/other films/b.wav' is cut", "'b.wav' is cut"),
        ("films/a.mp4: cut, films apart", "a.mp4: cut, films apart"),
        ("ratio 1/2, our-films/a.mp4, W/Y/X", "ratio 1/2, our-films/a.mp4, W/Y/X"),
        ("/mnt/tmpx81/v.mp4: cut", "v.mp4: cut"),
        ("no seek in <Box object at 0x7f00ab12>", "no seek in <Box object>"),
        ("see https://host/mnt/x/my", "see https://host/mnt/x/my"),
    ],
)
def test_a_message_is_the_same_on_each_machine(text, expected):
    assert without_places(text, [FOLDER, Path("films"), Path()]) == expected


def test_relative_folder_given_absolute_by_a_library():
    text = f"{Path('films').absolute()}/a.mp4: cut"
    assert without_places(text, ["films"]) == "a.mp4: cut"


def test_folders_of_a_source_and_of_one_inside_it():
    @dataclass
    class Outer:
        inner: FolderSource
        name: str = "outer"

    assert folders_of(Outer(FolderSource(FOLDER))) == [FOLDER]
    assert folders_of(object()) == []


def test_quoted_paths_may_hold_spaces():
    assert without_paths("in '/a b/c d' and \"/e f/g\"") == "in 'c d' and \"g\""
