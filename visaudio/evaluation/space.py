"""The measure group `space`: where a two-channel sound puts things, against its reference and by itself.

Frame cues come from `interaural`, how they agree over time from `agreement`, waveform distances from
`fairplay`; each figure's equation and source stand in docs/metrics.md, "Space".

Frames count where the reference is not silent. There a silent generated frame has ILD, ITD, IPD and IACC 0,
which is an error against all but a centred reference, and stands on the wrong side. What is asked of a silent
reference is nan, and so are descriptions of a silent generated sound: nothing to say.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from visaudio.evaluation import agreement, fairplay, interaural
from visaudio.evaluation.measures import ClipSet, FigureSpec, Heard, Measure, Scene, Settings, Sound

# Changes with whatever changes a number.
VERSION = 1
NAN = float("nan")


@dataclass(frozen=True)
class SpaceConfig:
    """side_db: a frame has a side where the reference's ILD is beyond it (about what is just noticeable).

    least_*: a reference that varies less (standard deviation over frames) gives no correlation.
    least_energy: of the whole clip's louder ear, added to both ears' before their ratio: at most 90 dB.
    """

    side_db: float = 1.0
    least_ild_db: float = 0.5
    least_itd_s: float = 20e-6
    least_ipd: float = 0.1
    least_iacc: float = 0.02
    least_energy: float = 1e-9


# cue heard -> (name and unit of its error, name of its correlation, title, how it is shown, least spread)
CUES = {
    "ild_db": ("ild_error_db", "ild_r", "ILD", ("dB", 2, 1.0), "least_ild_db"),
    "itd_gcc_s": ("itd_error_s", "itd_r", "ITD", ("us", 0, 1e6), "least_itd_s"),
    "itd_phase_s": ("itd_phase_error_s", "itd_phase_r", "ITD by phase", ("us", 0, 1e6), "least_itd_s"),
    "iacc": ("iacc_error", "iacc_r", "IACC", ("", 3, 1.0), "least_iacc"),
    "iacc_octaves": ("iacc_octaves_error", "iacc_octaves_r", "IACC 0.5-2 kHz", ("", 3, 1.0), "least_iacc"),
}


def _figures() -> tuple[FigureSpec, ...]:
    found = []
    for error, r, title, (unit, digits, factor), _ in CUES.values():
        found.append(FigureSpec(error, f"{title} error", unit, "lower", digits, factor))
        found.append(FigureSpec(r, f"{title} r in a clip", "", "higher"))
        found.append(FigureSpec(f"{r}_pooled", f"{title} r, all frames", "", "higher", per_clip=False))
    return (
        *found,
        FigureSpec("ipd_error_rad", "IPD error", "rad", "lower"),
        FigureSpec("ipd_r", "IPD r in a clip", "", "higher"),
        FigureSpec("ild_side", "side (sign of ILD)", "%", "higher", 1, 100.0),
        FigureSpec("silent_share", "silent where it should sound", "%", "lower", 1, 100.0),
        FigureSpec("lr_ratio_error_db", "left-right energy error", "dB", "lower", 2),
        FigureSpec("stft_distance", "STFT distance", "", "lower", 4),
        FigureSpec("envelope_distance", "ENV distance", "", "lower", 4),
        FigureSpec("magnitude_distance", "Mag distance", "", "lower", 4),
        FigureSpec("wave_distance", "WAV distance", "", "lower", 5),
        FigureSpec("phase_distance_rad", "phase distance", "rad", "lower", 3),
        FigureSpec("snr_db", "SNR", "dB", "higher", 2),
        FigureSpec("si_snr_db", "SI-SNR", "dB", "higher", 2),
        # of the generated sound alone
        FigureSpec("lr_ratio_db", "left-right energy", "dB", "", 2),
        FigureSpec("lr_difference", "L-R difference", "", "", 3),
        FigureSpec("mean_abs_ild_db", "mean |ILD|", "dB", "", 2),
        FigureSpec("lateral_share", "frames with |ILD| > 1 dB", "%", "", 1, 100.0),
        FigureSpec("mean_iacc", "mean IACC", "", "", 3),
    )


class SpaceMeasure(Measure):
    name = "space"
    figures = _figures()
    caches = False  # the waveform that the distances need is as large as the file

    def __init__(self, config: SpaceConfig = SpaceConfig()) -> None:
        self.config = config

    @property
    def key(self) -> str:
        settings = repr((VERSION, self.config, interaural.RATE_HZ, fairplay.RATE_HZ))
        return f"space-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"

    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        """The fields of `interaural.Cues`; energy (3,): of left, right and left - right, at the file's own
        rate; wave (2, S) float32 at fairplay.RATE_HZ."""
        cues = interaural.analyse(sound.at(interaural.RATE_HZ))
        left, right = np.asarray(sound.audio, np.float32)
        energy = [float(np.dot(a, a)) for a in (left, right, left - right)]
        return {**vars(cues), "energy": np.array(energy), "wave": sound.at(fairplay.RATE_HZ)}

    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        row = self._describe(generated)
        if reference is None:
            return row
        return row | self._against(generated, reference)

    def _describe(self, heard: Heard) -> dict[str, float]:
        """What is said of a sound by itself."""
        sounding = ~heard["silent"]
        if not sounding.any():
            return dict.fromkeys(
                ("lr_ratio_db", "lr_difference", "mean_abs_ild_db", "lateral_share", "mean_iacc"), NAN
            )
        size = np.abs(heard["ild_db"][sounding])
        left, right, difference = heard["energy"]
        return {
            "lr_ratio_db": self._ratio_db(heard),
            "lr_difference": float(difference / (2 * (left + right))),
            "mean_abs_ild_db": float(size.mean()),
            "lateral_share": float((size > self.config.side_db).mean()),
            "mean_iacc": float(heard["iacc"][sounding].mean()),
        }

    def _ratio_db(self, heard: Heard) -> float:
        """10 log10 of left over right energy of the whole sound; 0 for silence."""
        left, right, _ = heard["energy"]
        floor = self.config.least_energy * max(left, right)
        return float(10 * np.log10((left + floor) / (right + floor))) if floor > 0 else 0.0

    def _against(self, generated: Heard, reference: Heard) -> dict[str, float]:
        frames = min(len(generated["silent"]), len(reference["silent"]))
        counted = ~reference["silent"][:frames]
        ours, theirs = (
            {k: v[:frames][counted] for k, v in heard.items() if k not in ("energy", "wave")}
            for heard in (generated, reference)
        )
        row = fairplay.distances(generated["wave"], reference["wave"])
        row["lr_ratio_error_db"] = NAN
        if counted.any():
            row["lr_ratio_error_db"] = abs(self._ratio_db(generated) - self._ratio_db(reference))
        for cue, (error, r, _, _, spread) in CUES.items():
            total = agreement.sums(theirs[cue], ours[cue])
            row |= {f"{cue}.{k}": v for k, v in total.items()}
            row[error] = agreement.mean_error(total)
            row[r] = agreement.correlation(total, getattr(self.config, spread))
        return row | self._ipd(ours, theirs) | self._shares(ours, theirs)

    def _ipd(self, ours: Heard, theirs: Heard) -> dict[str, float]:
        heard = theirs["ipd_heard"]
        off = np.abs(agreement.wrapped(ours["ipd_rad"] - theirs["ipd_rad"]))[heard]
        r = agreement.circular_correlation(theirs["ipd_rad"], ours["ipd_rad"], heard, self.config.least_ipd)
        return {
            "ipd.n": float(off.size),
            "ipd.error": float(off.sum()),
            "ipd_error_rad": float(off.mean()) if off.size else NAN,
            "ipd_r": r,
        }

    def _shares(self, ours: Heard, theirs: Heard) -> dict[str, float]:
        lateral = np.abs(theirs["ild_db"]) > self.config.side_db
        right_side = (np.sign(ours["ild_db"]) == np.sign(theirs["ild_db"])) & ~ours["silent"]
        sides, right = int(lateral.sum()), int((right_side & lateral).sum())
        frames, silent = len(lateral), int(ours["silent"].sum())
        return {
            "side.n": float(sides),
            "side.right": float(right),
            "ild_side": right / sides if sides else NAN,
            "silent.n": float(frames),
            "silent.silent": float(silent),
            "silent_share": silent / frames if frames else NAN,
        }

    def summarise(self, clips: ClipSet, index: np.ndarray) -> dict[str, float]:
        """Errors and shares over all frames of the clips, pooled r; the other figures as means over clips."""
        found = super().summarise(clips, index)

        def total(name: str) -> float:
            return float(np.nansum(clips.rows[name][index])) if name in clips.rows else 0.0

        for cue, (error, r, _, _, spread) in CUES.items():
            sums = {key: total(f"{cue}.{key}") for key in agreement.KEYS}
            found[error] = agreement.mean_error(sums)
            found[f"{r}_pooled"] = agreement.correlation(sums, getattr(self.config, spread))
        for figure, part, whole in (
            ("ipd_error_rad", "ipd.error", "ipd.n"),
            ("ild_side", "side.right", "side.n"),
            ("silent_share", "silent.silent", "silent.n"),
        ):
            count = total(whole)
            found[figure] = total(part) / count if count else NAN
        return found


def make(settings: Settings) -> SpaceMeasure:
    """The factory that the registry names; it needs nothing but NumPy and SciPy."""
    return SpaceMeasure()
