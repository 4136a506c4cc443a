"""What a file itself says about the ambisonic order of its first audio track.

Three statements exist in practice:

- mp4 and mov: the SA3D box of the sample description (Google's Spatial Audio RFC);
- Opus: channel mapping family 2 (RFC 8486), and whatever FFmpeg itself reports as an ambisonic layout: ACN
  order, SN3D gains, perhaps followed by a head-locked stereo pair (family 3 codes mixtures: refused);
- WAV (".amb"): the two B-format subformats of WAVE_FORMAT_EXTENSIBLE, which mean FuMa.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bi_audio_dataset.media.files import check_input, open_input, reading
from bi_audio_dataset.media.probe import audio_stream, opus_family, sound_to_decode
from bi_audio_dataset.schema import UserError

# bytes 4 to 16 of the B-format GUIDs; the first four say integer (1) or float (3)
_B_FORMAT_GUID = bytes.fromhex("2107d3118644c8c1ca000000")
# boxes between the file and the sample descriptions
_TO_STSD = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
# an atom larger than this is not a header: a damaged length
_MAX_HEADER = 1 << 26


@dataclass(frozen=True)
class AmbisonicTag:
    """Stated order of a track.

    ordering: "acn" or "fuma". normalisation: "sn3d" or "maxn". places: track channel of W, Y, Z and X.
    extra: further channels (head-locked stereo: 2). where: in words, for messages.
    """

    ordering: str
    normalisation: str
    places: tuple[int, int, int, int]
    extra: int
    where: str


def ambisonic_tag(path: str | os.PathLike) -> AmbisonicTag | None:
    """The order that the file states for its first audio track, None if it states none.

    Raises:
        UserError: the file cannot be read, or it states what no published version defines.
    """
    path = check_input(path)
    with reading(path):
        with path.open("rb") as file:
            head = file.read(12)
        if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
            return _from_wav(path)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            found = _from_mp4(path)
            if found is not None:
                return found
        return _from_stream(path)


def _from_stream(path: Path) -> AmbisonicTag | None:
    with open_input(path) as container:
        if audio_stream(container) is None:
            return None
        stream = sound_to_decode(container, path)
        family, layout, channels = opus_family(stream), stream.layout.name, stream.channels
    if family == 2:
        return _acn(channels, "Opus channel mapping family 2")
    return _acn(channels, f"channel layout '{layout}'") if layout.startswith("ambisonic") else None


def _acn(channels: int, where: str) -> AmbisonicTag:
    # (n + 1)^2 components, or these and a stereo pair (RFC 8486, section 3.1)
    extra = 0 if round(channels**0.5) ** 2 == channels else 2
    return AmbisonicTag("acn", "sn3d", (0, 1, 2, 3), extra, where)


def _from_wav(path: Path) -> AmbisonicTag | None:
    with path.open("rb") as file:
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            if name == b"fmt ":
                body = file.read(min(size, 64))
                is_extensible = len(body) >= 40 and struct.unpack("<H", body[:2])[0] == 0xFFFE
                if is_extensible and body[28:40] == _B_FORMAT_GUID:
                    return AmbisonicTag("fuma", "maxn", (0, 2, 3, 1), 0, "B-format subformat of the WAV file")
                return None
            file.seek(size + size % 2, os.SEEK_CUR)
    return None


def _from_mp4(path: Path) -> AmbisonicTag | None:
    """SA3D of the first sound track."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for description in _find(file, 0, size, _TO_STSD):
            begin, end = description
            # stsd: version and flags, number of entries, then the entries
            for entry, start, stop in _boxes(file, begin + 8, end):
                box = _in_sound_entry(file, entry, start, stop)
                if box is not None:
                    return _parse_sa3d(box, path)
    return None


def _find(file: BinaryIO, begin: int, end: int, names: tuple[bytes, ...]) -> Iterator[tuple[int, int]]:
    """Bodies (begin, end) of every box that the path of names leads to."""
    if not names:
        yield begin, end
        return
    for name, start, stop in _boxes(file, begin, end):
        if name == names[0]:
            yield from _find(file, start, stop, names[1:])


def _boxes(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, body begin, body end) of the boxes that follow each other in [begin, end)."""
    while begin + 8 <= end:
        file.seek(begin)
        size, name = struct.unpack(">I4s", file.read(8))
        body = begin + 8
        if size == 1:
            size, body = struct.unpack(">Q", file.read(8))[0], begin + 16
        elif size == 0:
            size = end - begin
        if size < body - begin or begin + size > end:
            return  # cut short or damaged: FFmpeg will say so
        yield name, body, begin + size
        begin += size


def _in_sound_entry(file: BinaryIO, entry: bytes, begin: int, end: int) -> bytes | None:
    """Body of the SA3D box of a sample entry. Only sound entries have the layout that is skipped here."""
    if end - begin > _MAX_HEADER or end - begin < 28:
        return None
    file.seek(begin)
    body = file.read(end - begin)
    if b"SA3D" not in body:
        return None
    version = struct.unpack(">H", body[8:10])[0]
    fixed = 28 + {0: 0, 1: 16, 2: 36}.get(version, 0)  # QuickTime's later versions are longer
    for name, start, stop in _boxes(file, begin + fixed, end):
        if name == b"wave":
            for inner, first, last in _boxes(file, start, stop):
                if inner == b"SA3D":
                    return body[first - begin : last - begin]
        if name == b"SA3D":
            return body[start - begin : stop - begin]
    return None


def _parse_sa3d(body: bytes, path: Path) -> AmbisonicTag:
    if len(body) < 12:
        raise UserError(f"{path}: its SA3D box is cut short; write the metadata anew")
    version, kind, order, ordering, normalisation, channels = struct.unpack(">BBIBBI", body[:12])
    kind &= 0x7F  # the top bit is a flag: head-locked stereo follows
    extra = channels - (order + 1) ** 2
    if (version, kind, ordering, normalisation) != (0, 0, 0, 0) or order < 1:
        raise UserError(
            f"{path}: its SA3D box states version {version}, type {kind}, order {order}, channel ordering "
            f"{ordering}, normalisation {normalisation}; expected 0, 0, at least 1, 0 (ACN) and 0 (SN3D)"
        )
    if extra not in (0, 2) or len(body) < 12 + 4 * channels:
        raise UserError(
            f"{path}: its SA3D box maps {channels} channels for order {order}, expected {(order + 1) ** 2}, "
            "or 2 more; write the metadata anew"
        )
    # entry k is the track's channel that carries component k (RFC: W, X, Y, Z in the track is 0, 2, 3, 1)
    places = struct.unpack(f">{channels}I", body[12 : 12 + 4 * channels])[:4]
    return AmbisonicTag("acn", "sn3d", places, extra, "SA3D box")
