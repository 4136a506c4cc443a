"""A listening test in the browser: python -m visaudio.evaluation.listen. What is in it is decided here.

The parts are in listening/: plans of trials, loudness, the server, the answers' file, what they come to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.evaluation import pairs
from visaudio.evaluation.listening import answers
from visaudio.evaluation.listening.session import NAME, ListeningTest
from visaudio.evaluation.listening.trials import KINDS, PAIR
from visaudio.evaluation.problems import Problems, line
from visaudio.evaluation.reading import SHORTEST_S, Refused, read_sound

# picture codecs that the common browsers show; of others a listener would hear the sound alone
BROWSER_CODECS = ("h264", "vp9", "av1")


def make_test(
    systems: Sequence[str],
    output: Path,
    videos: Path | None = None,
    trials: int = 40,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    listener: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: bool = False,
) -> ListeningTest:
    """Of NAME=DIR folders. Only clips that every system has, and whose files the evaluation would score, are
    in it; say() is told of the others. Every file is read once for that; progress: with a bar. Pictures: of
    `videos`, else of the systems' own files. UserError for what cannot be."""
    folders = pairs.parse_systems(systems, "--systems")
    if len(folders) < 2 and PAIR in kinds:
        raise UserError("pairs need two systems: give --systems A=DIR B=DIR, or --ask ratings")
    if listener is not None and not NAME.fullmatch(listener):
        raise UserError(f"--listener '{listener}': expected 1 to 40 letters, digits, dots, hyphens or bars")
    problems = Problems()
    found = {name: pairs.find_sounds(folder, problems, system=name) for name, folder in folders.items()}
    shown: dict[str, Path] = {} if videos is None else pairs.find_videos(videos)
    if videos is None:
        for folder in reversed(list(found.values())):
            shown.update(folder.videos)
    sounds = _common({name: folder.sounds for name, folder in found.items()}, problems, progress)
    pictures = _pictures(shown, sounds, say)
    for problem in problems.found():
        say(line(problem))
    test = ListeningTest(sounds, pictures, output, seed, trials, tuple(kinds), listener)
    _check_output(test, say)
    return test


def _common(
    sounds: Mapping[str, Mapping[str, Path]], problems: Problems, progress: bool
) -> dict[str, dict[str, Path]]:
    """Of each system, the clips that all have and that can be played whole."""
    everywhere = set.intersection(*(set(files) for files in sounds.values()))
    for name, files in sounds.items():
        for clip in set().union(*sounds.values()) - set(files):
            problems.add("missing_generated", clip, name)
    asked = [(clip, name) for clip in sorted(everywhere) for name in sounds]
    refused, why = set(), ""
    # a bar where it takes longer than a second
    for clip, name in tqdm(asked, desc="sounds", unit="file", disable=not progress, delay=1, smoothing=0.1):
        try:
            _check_playable(sounds[name][clip])
        except Refused as error:
            refused.add(clip)
            problems.add(error.kind, clip, name, detail=error.detail)
            why = why or f"; of {len(everywhere)} that all have the first is refused: {name}'s {error.detail}"
    usable = sorted(everywhere - refused)
    if not usable:
        most = ", ".join(f"{name} has {len(files)}" for name, files in sounds.items())
        raise UserError(f"there is no clip that every system has and that can be read ({most}{why})")
    return {name: {clip: files[clip] for clip in usable} for name, files in sounds.items()}


def _check_playable(path: Path) -> None:
    """Reads the whole sound, as the evaluation does. Raises Refused."""
    sound = read_sound(path)
    seconds = sound.audio.shape[1] / sound.sample_rate
    if seconds < SHORTEST_S:
        raise Refused("too_short", f"{path.name}: {seconds:.3g} s, expected at least {SHORTEST_S:g} s")


def _pictures(
    videos: Mapping[str, Path], sounds: Mapping[str, Mapping[str, Path]], say: Callable[[str], None]
) -> dict[str, Path]:
    """Clip -> video. UserError for one that a browser would not show; clips without are told."""
    clips = next(iter(sounds.values()))
    found = {clip: videos[clip] for clip in clips if clip in videos}
    for path in found.values():
        codec = media.probe(path).video_codec
        if codec not in BROWSER_CODECS:
            raise UserError(f"{path}: browsers do not show {codec}, expected {', '.join(BROWSER_CODECS)}")
    without = [clip for clip in clips if clip not in found]
    if without:
        few = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
        say(f"{len(without)} of {len(clips)} clips have no picture, and get 2 of the 5 questions: {few}")
    return found


def _check_output(test: ListeningTest, say: Callable[[str], None]) -> None:
    """That it can be written, and what it holds already."""
    try:
        test.output.parent.mkdir(parents=True, exist_ok=True)
        test.output.touch()
    except OSError as error:
        raise UserError(f"{test.output}: cannot be written ({error.strerror or error})") from error
    rows = [row for row in answers.read(test.output) if row["kind"] != answers.CHECK]
    mine = sum(row["plan"] == test.fingerprint for row in rows)
    if mine:
        say(f"{test.output}: {mine} answers of this test, which goes on")
    if len(rows) > mine:
        say(f"{test.output}: {len(rows) - mine} answers of tests with other systems, clips or settings")


def main(arguments: Sequence[str] | None = None) -> int:
    """python -m visaudio.evaluation.listen --systems A=DIR B=DIR --output answers.jsonl."""
    from visaudio.cli.listen import main as run

    return run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
