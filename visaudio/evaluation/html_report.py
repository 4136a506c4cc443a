"""The page of an evaluation: OUTPUT/report.html and OUTPUT/media/, from what results.json holds.

It opens from the disk and asks nothing of other machines. A few clips have pictures, the worst by one figure
and a spread over the others; all are in a listing that can be sorted, with players. Up to `INLINE` pictures
stand inside the page, more of them lie in media/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.evaluation.page import cards, choice, comparisons, document, listing, problems, summary
from visaudio.evaluation.page.media_files import MediaFolder
from visaudio.evaluation.page.pictures import ShownSound, Track, data_uri, draw, system_style
from visaudio.evaluation.page.text import escape, listed, tag
from visaudio.evaluation.reading import fault_of
from visaudio.evaluation.results import ClipScored, Results
from visaudio.evaluation.synth_benchmark import ACTIVE_DB
from visaudio.evaluation.truth_files import read_truth
from visaudio.stored import write_whole

PAGE = "report.html"
LONGEST_S = 60.0  # of a picture: cues take some 10 MB a second while they are drawn
INLINE = 32  # clips whose pictures stand in the page itself, some 100 kB a sound
# the first of these that single clips have says which clips are worst, unless a figure is named
FIRST_FIGURES = ("ild_error_db",)


@dataclass(frozen=True)
class ReportConfig:
    """clips: how many get pictures. figure, system: worst first by that figure of that system; "" takes
    the level difference's error, or else the first figure there is, and the first system."""

    clips: int = 16
    figure: str = ""
    system: str = ""


def write_report(
    results: Results,
    output: Path,
    config: ReportConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the page; its path. progress(done, total) is told of clips drawn. UserError for a figure or a
    system that is not there, or a folder that cannot be written."""
    config = config or ReportConfig()
    order = worst_order(results, config)
    places = choice.with_pictures(order.places, config.clips) if order else []
    try:
        output.mkdir(parents=True, exist_ok=True)
        folder = MediaFolder(output)
        addresses = _addresses(results, folder, set(places))
        made = _cards(results, order, places, addresses, folder, progress) if order else []
        sections = (
            summary.section(results),
            comparisons.section(results),
            problems.section(results, folder.notes),
            cards.section(made, _which(places, len(results.clips))),
            listing.section(results, order, addresses, places),
        )
        data = listing.data(results, order, addresses, places)
        text = document.page(_title(results), _lead(results), sections, data, results.made)
        page = output / PAGE
        write_whole(page, text.encode())
        folder.close()
    except OSError as error:
        raise UserError(f"{output}: the report cannot be written ({error.strerror or error})") from error
    return page


def worst_order(results: Results, config: ReportConfig) -> listing.Order | None:
    """None where no clip has a figure of its own. UserError for a name that is not there."""
    specs = {spec.name: spec for spec in listing.clip_figures(results)}
    systems = [system.name for system in results.systems]
    if config.figure and config.figure not in specs:
        raise UserError(f"no clip has a figure '{config.figure}', expected of {', '.join(specs) or 'none'}")
    if config.system and config.system not in systems:
        raise UserError(f"there is no system '{config.system}', expected of {', '.join(systems)}")
    if not specs or not systems:
        return None
    judged = [name for name in specs if specs[name].better]
    first = [name for name in FIRST_FIGURES if name in specs]
    spec = specs[config.figure or (first or judged or list(specs))[0]]
    system = config.system or systems[0]
    places = choice.worst_first(listing.values_of(results, system, spec.name), spec.better)
    return listing.Order(spec, system, places)


def _addresses(results: Results, folder: MediaFolder, shown: set[int]) -> list[listing.Addresses]:
    found = []
    for place, clip in enumerate(results.clips):
        reference, video = results.path(clip.reference), results.path(clip.video)
        sounds = [clip.sounds.get(system.name) for system in results.systems]
        found.append(
            listing.Addresses(
                folder.sound(reference, None, clip.id) if reference else None,
                folder.video(video, clip.id, copy=place in shown) if video else None,
                tuple(
                    folder.sound(results.path(sound.path), system.name, clip.id) if sound else None
                    for system, sound in zip(results.systems, sounds, strict=True)
                ),
            )
        )
    return found


def _cards(
    results: Results,
    order: listing.Order,
    places: Sequence[int],
    addresses: Sequence[listing.Addresses],
    folder: MediaFolder,
    progress: Callable[[int, int], None],
) -> list[str]:
    ranks = {int(place): rank for rank, place in enumerate(order.places, start=1)}
    made = []
    for place in places:
        clip = results.clips[place]
        if len(places) <= INLINE:
            picture = draw_clip(results, clip)
        else:
            picture = draw_clip(results, clip, partial(_stored_picture, folder, clip.id))
        few = len(places) <= INLINE
        made.append(cards.card(results, order, place, ranks[place], addresses[place], picture, few))
        progress(len(made), len(places))
    return made


def _stored_picture(folder: MediaFolder, clip: str, name: str, png: bytes) -> str:
    return folder.picture(png, clip, name)


def draw_clip(
    results: Results,
    clip: ClipScored,
    image: Callable[[str, bytes], str] = lambda name, png: data_uri(png),
) -> str:
    """The clip's SVG, and what is not in it; "" where none of its sounds can be read any more."""
    wanted = [("reference", results.path(clip.reference), "reference")]
    for number, system in enumerate(results.systems):
        if system.name in clip.sounds:
            path = results.path(clip.sounds[system.name].path)
            wanted.append((system.name, path, system_style(number)))
    sounds, notes = [], ""
    for name, path, style in wanted:
        ears = _ears(path)
        if ears is None:
            continue
        if fault := fault_of(*ears):  # scored by a version that refused less
            notes += tag("p", escape(f"{name} is not drawn: {fault[1]}."), class_="note")
        else:
            sounds.append(ShownSound(name, *ears, style))
    if not sounds:
        return notes
    # as much as was compared; sounds of other lengths are drawn as far as that
    compared = [sound.duration_s for sound in clip.sounds.values() if sound.duration_s > 0]
    duration_s = max(compared, default=sounds[0].audio.shape[1] / sounds[0].sample_rate)
    label = f"{clip.id}: spectrograms of both ears, ILD and ITD over time of {listed(s.name for s in sounds)}"
    picture = draw(sounds, _tracks(results, clip), min(duration_s, LONGEST_S), label, image)
    if duration_s > LONGEST_S:
        notes += tag("p", f"The first {LONGEST_S:g} of {duration_s:.1f} s.", class_="note")
    return notes + picture


def _ears(path: Path | None) -> tuple[np.ndarray, int] | None:
    """((2, S), rate) as the measures hear it: mono in both ears. None where it cannot be read."""
    if path is None or not path.is_file():
        return None
    try:
        audio, rate = media.read_audio(path, duration_s=LONGEST_S)
    except UserError:
        return None
    if not audio.shape[1]:
        return None
    return (np.repeat(audio, 2, axis=0) if audio.shape[0] == 1 else audio[:2]), rate


def _tracks(results: Results, clip: ClipScored) -> tuple[Track, ...]:
    path = results.path(clip.truth)
    if path is None or not path.is_file():
        return ()
    truth = read_truth(path)
    return tuple(
        Track(
            source.caption or source.class_name,
            np.where(source.envelope_db > ACTIVE_DB, source.lateral_deg, np.nan),
            truth.truth_rate_hz,
            np.asarray(source.onset_s),
        )
        for source in truth.sources
    )


def _title(results: Results) -> str:
    return f"Evaluation of {listed((system.name for system in results.systems), 4)}"


def _lead(results: Results) -> list[str]:
    named = {"commit", "date", "version"} & results.made.keys()
    facts = [f"{key} {results.made[key]}" for key in sorted(named)]
    what = f"{len(results.clips)} clips, {len(results.systems)} systems"
    if any(system.of > system.clips for system in results.systems):
        counts = ", ".join(f"{system.name} {system.counted}" for system in results.systems)
        what += f" (scored: {counts})"
    command = [str(results.made["command"])] if results.made.get("command") else []
    return [", ".join([what, *facts]), *command]


def _which(places: Sequence[int], total: int) -> str:
    if len(places) == total:
        return "All clips, the worst first."
    head = math.ceil(len(places) / 2)
    rest = f", then {len(places) - head} spread evenly over the others" if len(places) > head else ""
    return f"{len(places)} of {total} clips: the worst {head} first{rest}."
