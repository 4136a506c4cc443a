"""Which ambisonic component each channel of a track carries, and the way from there to AmbiX.

AmbiX (ambisonics.py) is ACN order W, Y, Z, X with SN3D gains. Others that recordings come in:

- FuMa: order W, X, Y, Z with MaxN gains, where W lies 3 dB lower (Malham 2003, "Higher order Ambisonics");
- N3D: every first-order gain larger by sqrt(3) (Daniel 2000);
- any order that the track's own metadata spell out (the SA3D box's channel map).

In the first order SN3D and MaxN differ in W alone. Nothing in the samples tells these apart for sure, so an
order is either stated or asked for, never guessed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bi_audio_dataset.schema import UserError
from bi_audio_dataset.unusable import Unusable

#: Track channels of the first-order components W, Y, Z, X.
_PLACES = {"acn": (0, 1, 2, 3), "fuma": (0, 2, 3, 1)}
#: Factors that bring W and (Y, Z, X) of a normalisation to SN3D.
_FACTORS = {"sn3d": (1.0, 1.0), "n3d": (1.0, 3**-0.5), "maxn": (2**0.5, 1.0)}
SIDECAR_KEYS = ("channels", "ordering", "normalisation", "normalization")


@dataclass(frozen=True)
class ChannelOrder:
    """Where W, Y, Z and X stand in a track, and how loud.

    places: track channel of W, Y, Z and X. normalisation: "sn3d", "n3d" or "maxn". extra: channels of the
    track that belong to no component (a head-locked stereo pair: 2).
    """

    places: tuple[int, int, int, int] = _PLACES["acn"]
    normalisation: str = "sn3d"
    extra: int = 0

    def __post_init__(self) -> None:
        if self.normalisation not in _FACTORS:
            raise UserError(
                f"normalisation '{self.normalisation}' is unknown, expected one of {', '.join(_FACTORS)}"
            )
        if len(set(self.places)) != 4 or min(self.places) < 0:
            raise UserError(f"channel map {list(self.places)} does not name four different channels")

    def __str__(self) -> str:
        letters = {place: letter for place, letter in zip(self.places, "WYZX", strict=True)}
        known = "".join(letters.get(place, "-") for place in range(max(self.places) + 1))
        return f"{known} {self.normalisation.upper().replace('MAXN', 'MaxN')}"

    def to_ambix(self, track: np.ndarray, file: str = "the track") -> np.ndarray:
        """(C, N) of this order -> (4, N) float32 AmbiX; untouched samples where the track is AmbiX already.

        Raises UserError for a number of channels that this order cannot have.
        """
        self.check_count(track.shape[0], file)
        foa = np.asarray(track, dtype=np.float32)[list(self.places)]
        omni, vector = _FACTORS[self.normalisation]
        if omni != 1.0:
            foa[:1] *= np.float32(omni)
        if vector != 1.0:
            foa[1:] *= np.float32(vector)
        return foa

    def check_count(self, channels: int, file: str = "the track") -> None:
        """Unusable, in words that name `file`, unless channels = (n + 1)^2 + extra for an order n >= 1."""
        order = round((channels - self.extra) ** 0.5) - 1 if channels > self.extra else 0
        if order >= 1 and (order + 1) ** 2 + self.extra == channels and channels > max(self.places):
            return
        beside = f" and {self.extra} head-locked" if self.extra else ""
        hint = {
            1: " (mono holds no direction)",
            2: " (stereo: for perspective video with ready ears use the source 'perspective')",
            6: " (5.1 surround, or AmbiX with head-locked stereo, which only metadata can tell)",
        }.get(channels, "")
        why = f"{file} has {channels} audio channels{hint}, expected 4 ambisonic ones (or 9, 16, ...){beside}"
        raise Unusable({"channels": why}, {"channels.count": channels})


AMBIX = ChannelOrder()
FUMA = ChannelOrder(_PLACES["fuma"], "maxn")
#: What a user may ask for by name.
ORDERS = {
    "ambix": AMBIX,
    "fuma": FUMA,
    "acn-sn3d": AMBIX,
    "acn-n3d": ChannelOrder(normalisation="n3d"),
    "fuma-maxn": FUMA,
    "fuma-sn3d": ChannelOrder(_PLACES["fuma"], "sn3d"),
    "fuma-n3d": ChannelOrder(_PLACES["fuma"], "n3d"),
}


def order_of(name: str) -> ChannelOrder:
    """The order of a name ("ambix", "fuma", "acn-n3d", ...; any case). UserError for any other."""
    try:
        return ORDERS[name.lower()]
    except KeyError:
        raise UserError(f"channel order '{name}' is unknown, expected one of {', '.join(ORDERS)}") from None


def read_sidecar(path: Path) -> ChannelOrder | None:
    """The order that a JSON file states, None if it states none.

    {"channels": "ambix"}, or {"ordering": "ACN", "normalisation": "SN3D"}; other keys are left alone, since
    a download tool's own JSON may lie there. UserError if it cannot be read or names what is unknown.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"'{path.name}' cannot be read as JSON ({reason}): mend or remove it") from error
    content = content if isinstance(content, dict) else {}
    stated = {key: content[key] for key in SIDECAR_KEYS if key in content}
    if not stated:
        return None
    gains = stated.get("normalisation", stated.get("normalization"))
    if "channels" in stated:
        name = stated["channels"]
    elif "ordering" in stated and gains is not None:
        name = f"{stated['ordering']}-{gains}"
    else:
        raise UserError(
            f"'{path.name}' states {', '.join(stated)} alone, expected both ordering and normalisation "
            '(or "channels": "ambix")'
        )
    try:
        return order_of(str(name))
    except UserError as error:
        raise UserError(f"'{path.name}': {error}") from None
