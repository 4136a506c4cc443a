"""Other systems' outputs as a folder of sounds by clip: names matched, more channels brought to two ears.

    python -m visaudio.evaluation.baselines import --from DIR --layout ambix --output DIR --name visage

Systems differ in what they write (docs/evaluation.md has a table): which channel is which is not to be known
from the samples, so one or two channels are taken as they are, and anything else must be named.

- ambisonics: AmbiX and the builder's other orders (bi_audio_dataset/channels.py), first order; turned to the
  camera's yaw where the field is the panorama's; then through the builder's decoder.
- 5.1 in the order of WAV and FFmpeg (L R C LFE Ls Rs), or of film (L C R Ls Rs LFE): loudspeakers at 30, -30,
  0, 110 and -110 degrees (ITU-R BS.775-3) through the head's responses; or `downmix`, the same document's
  two-channel matrix (C and surrounds at -3 dB). LFE is left out of both, as the matrix leaves it out.

Legend: C channels, S samples.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bi_audio_dataset import ambisonics
from bi_audio_dataset.binaural import render_direct
from bi_audio_dataset.channels import ORDERS
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sphere import rotation_matrix
from visaudio.evaluation.baselines.spatialise import decoder
from visaudio.evaluation.pairs import RANK
from visaudio.evaluation.reading import read_whole

#: Channel of L, R, C, Ls and Rs.
SURROUND = {"5.1": (0, 1, 2, 4, 5), "5.1-film": (0, 2, 1, 3, 4)}
#: Azimuths of L, R, C, Ls and Rs, positive left.
SPEAKERS_DEG = (30.0, -30.0, 0.0, 110.0, -110.0)
DOWNMIX = {name: 10 ** (-3 / 20) for name in ("C", "Ls", "Rs")}
LAYOUTS = ("ears", *ORDERS, *SURROUND)
COLUMNS = ("file", "id", "layout", "yaw_deg")


@dataclass(frozen=True)
class Item:
    """A file of another system, the clip it is of, and how it is read. yaw_deg: the camera's, to the left."""

    path: Path
    id: str
    layout: str = "ears"
    yaw_deg: float = 0.0


# -------------------- which file is of which clip


def match(folder: Path, ids: Sequence[str] | None, pattern: str = "**/{id}.*") -> dict[str, Path]:
    """The file of each clip by a pattern of glob with {id} in it.

    ids: known ones; of several that fit a file the longest is taken, so that clip 1's `*` does not take
    clip 10's files. None: whatever stands at {id}. Of files that differ by their ending alone sound comes
    before video. UserError where a clip has several files.
    """
    if "{id}" not in pattern or pattern.count("{id}") > 1:
        raise UserError(f"--pattern '{pattern}': expected {{id}} in it, once, for the clip's id")
    if not folder.is_dir():
        raise UserError(f"--from {folder}: no such folder")
    # an id beside a star would make two stars, which mean folders
    wide = re.sub(r"\*{2,}(?!/)", "*", pattern.replace("{id}", "*"))
    try:
        re.compile(_regex(wide))
        files = [path for path in sorted(folder.glob(wide)) if _is_media(path, folder)]
    except (re.error, ValueError, NotImplementedError, OSError) as error:  # of glob: a whole path as pattern
        raise UserError(f"--pattern '{pattern}': cannot be looked for in {folder} ({error})") from error
    if not files:
        raise UserError(f"--from {folder}: no sound or video there fits the pattern '{pattern}'")
    found: dict[str, list[Path]] = {}
    for path in files:
        name = _id_of(path.relative_to(folder).as_posix(), pattern, ids)
        if name is not None:
            found.setdefault(name, []).append(path)
    chosen = {}
    for name, paths in found.items():
        if len({p.with_suffix("") for p in paths}) > 1:
            shown = ", ".join(str(p.relative_to(folder)) for p in paths[:3])
            raise UserError(
                f"--from {folder}: {len(paths)} files are of clip '{name}' ({shown}): narrow --pattern, or "
                "name one for each clip with --mapping"
            )
        chosen[name] = min(paths, key=lambda p: (RANK[p.suffix.lower()], p.name))
    return chosen


def _is_media(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in RANK and path.is_file() and not hidden


def _id_of(path: str, pattern: str, ids: Sequence[str] | None) -> str | None:
    """Which clip a file (relative, with /) is of; None for none of `ids`."""
    before, _, after = pattern.partition("{id}")
    if ids is not None:
        head, tail = _regex(before), _regex(after)
        fitting = [n for n in ids if n in path and re.fullmatch(head + re.escape(n) + tail, path)]
        return max(fitting, key=len, default=None)
    if any(mark in before.rpartition("/")[2] for mark in "*?["):
        raise UserError(f"--pattern '{pattern}' leaves open where an id begins: give --dataset, or --mapping")
    found = re.fullmatch(_regex(before) + "([^/]+)" + _regex(after), path)
    return found[1] if found else None


def _regex(part: str) -> str:
    """The regular expression of a piece of a glob pattern, as Path.glob reads it."""
    meanings = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*|\?|\[[^]]*\])", part)
    return "".join(
        meanings.get(p) or (p if p.startswith("[") and p.endswith("]") else re.escape(p)) for p in pieces
    )


def read_mapping(file: Path, folder: Path) -> list[Item]:
    """Items of a CSV with the columns file (relative to folder), id and, if wanted, layout and yaw_deg."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = tuple(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--mapping {file}: cannot be read as CSV ({error})") from error
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown or not {"file", "id"} <= set(columns):
        raise UserError(
            f"--mapping {file}: has the columns {', '.join(columns)}, expected {', '.join(COLUMNS)}"
        )
    items = []
    for number, row in enumerate(rows, start=2):
        where = f"--mapping {file}, line {number}"
        path = folder / (row["file"] or "")
        if not row["id"] or not path.is_file():
            raise UserError(
                f"{where}: no file '{row['file']}' in {folder}" if row["id"] else f"{where}: no id"
            )
        layout = row.get("layout") or ""
        try:
            yaw_deg = float(row.get("yaw_deg") or "nan")
        except ValueError:
            raise UserError(f"{where}: yaw_deg is '{row['yaw_deg']}', expected degrees") from None
        items.append(Item(path, row["id"], layout, yaw_deg))
    return items


def items_of(
    folder: Path,
    ids: Sequence[str] | None,
    pattern: str,
    mapping: Path | None,
    plain: Item,
    allow_missing: bool,
) -> tuple[list[Item], list[str]]:
    """What is to be imported, and the clips of `ids` that have no file. plain: layout and yaw_deg where the
    mapping says none. UserError for missing clips (unless allowed), unknown layouts and clips named twice."""
    if mapping is not None:
        items = read_mapping(mapping, folder)
    else:
        found = match(folder, ids, pattern)
        items = [replace(plain, path=path, id=name) for name, path in found.items()]
    yaw = plain.yaw_deg
    items = [
        replace(i, layout=i.layout or plain.layout, yaw_deg=yaw if math.isnan(i.yaw_deg) else i.yaw_deg)
        for i in items
    ]
    for item in items:
        if not math.isfinite(item.yaw_deg):
            raise UserError(f"clip {item.id}: yaw_deg is {item.yaw_deg}, expected degrees")
        if item.layout not in LAYOUTS:
            raise UserError(
                f"clip {item.id}: layout '{item.layout}' is unknown, expected of {', '.join(LAYOUTS)}"
            )
        if "/" in item.id or item.id.startswith("."):
            raise UserError(f"clip id '{item.id}': expected a name that a file may have")
    twice = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise UserError(f"--mapping {mapping}: names clip '{twice[0]}' more than once")
    known = {item.id for item in items}
    if ids is not None:
        items = [item for item in items if item.id in set(ids)]
        if not items:
            raise UserError(
                f"--from {folder}: none of its files is of a clip of the dataset (e.g. '{ids[0]}')"
            )
    missing = [name for name in ids or () if name not in known]
    if missing and not allow_missing:
        raise UserError(
            f"--from {folder}: {len(missing)} of {len(ids)} clips have no file there, the first is "
            f"'{missing[0]}'; --allow-missing imports the others (the evaluation counts what is missing)"
        )
    return items, missing


# -------------------- channels -> ears


def to_ears(
    audio: np.ndarray, rate: int, layout: str, yaw_deg: float = 0.0, downmix: bool = False, file: str = "it"
) -> np.ndarray:
    """(C, S) of a layout -> (2, S); one channel stays one. UserError where C is not the layout's."""
    channels = audio.shape[0]
    if layout == "ears":
        if channels > 2:
            hint = {4: "ambix (or fuma ...)", 6: "5.1 or 5.1-film"}.get(
                channels, "one of " + ", ".join(LAYOUTS)
            )
            raise UserError(
                f"{file}: has {channels} channels, which the samples do not explain: give --layout {hint}"
            )
        return audio
    if layout in ORDERS:
        if channels < 4:
            raise UserError(f"{file}: has {channels} channels, expected at least 4 for --layout {layout}")
        foa = ORDERS[layout].to_ambix(audio, file)
        if yaw_deg:
            foa = ambisonics.rotate(foa, rotation_matrix(np.radians(yaw_deg)))
        return decoder(rate).render(foa)
    if channels != 6:
        raise UserError(f"{file}: has {channels} channels, expected 6 for --layout {layout}")
    feeds = audio[list(SURROUND[layout])]
    if downmix:
        left, right, centre, left_back, right_back = feeds
        c, ls, rs = DOWNMIX["C"], DOWNMIX["Ls"], DOWNMIX["Rs"]
        return np.stack([left + c * centre + ls * left_back, right + c * centre + rs * right_back])
    hrirs = decoder(rate).hrir_set
    ears = np.zeros((2, audio.shape[1]), np.float32)
    for feed, azimuth_deg in zip(feeds, SPEAKERS_DEG, strict=True):
        response = hrirs.nearest(np.radians(azimuth_deg))
        ears += render_direct(feed, response, hrirs.centre_delay_samples)
    return ears


def note_of(item: Item, downmix: bool) -> dict:
    """What the sound is made from, for its .json."""
    try:
        digest = hashlib.sha256(item.path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{item.path}: cannot be read ({error.strerror or error})") from error
    note = {"file": item.path.name, "file_sha256": digest, "layout": item.layout}
    if item.layout in SURROUND:
        note["downmix"] = downmix
    return {**note, "yaw_deg": item.yaw_deg} if item.layout in ORDERS else note


def convert(item: Item, downmix: bool) -> tuple[np.ndarray, int]:
    """(1 or 2, S) of a file, and its rate. UserError, which names the file, if it is of no use."""
    audio, rate = read_whole(item.path)
    return to_ears(audio, rate, item.layout, item.yaw_deg, downmix, str(item.path)), rate


def write_one(item: Item, output: Path, system: str, note: dict, downmix: bool) -> int:
    """Converts and stores one sound; 1."""
    from visaudio.evaluation.synth_outputs import store

    try:
        sound, rate = convert(item, downmix)
    except UserError as error:
        raise UserError(str(error)) from None  # of subclasses not all travel between processes
    store(output / system / f"{item.id}.flac", sound, rate, {"id": item.id, "system": system, **note})
    return 1
