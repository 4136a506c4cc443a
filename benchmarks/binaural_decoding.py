#!/usr/bin/env python
"""How near the first-order decoder comes to the HRIRs themselves, beside other decoders, and how fast it is.

    python benchmarks/binaural_decoding.py --hrir ../shared/media/hrir

Plane waves from a 5-degree grid on the horizon go through each decoder; the reference is the same wave
through the HRIR measured nearest to its direction. Printed, as means over the 72 directions:

ILD                 error of the broadband level difference, 50 Hz to 20 kHz of a white source, in dB
ITD a-b             error of the interaural time from the interaural phase, averaged over a to b Hz, in us
coherence           error of the interaural coherence of a diffuse field, 100 Hz to 2 kHz

The other decoders were made from other heads, so their errors hold the difference between heads too: rows of
ours from other heads show how much that is. First order cannot have both the interaural time above 800 Hz and
the coherence of a diffuse field (bi_audio_dataset/binaural.py): ours keeps the latter.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from bi_audio_dataset import ambisonics, hrtf, sphere
from bi_audio_dataset.binaural import DIFFUSE_COVARIANCE, MIRROR_Y, BinauralDecoder, render_binaural
from bi_audio_dataset.hrtf import HrirSet
from bi_audio_dataset.schema import UserError

RATE = 44100
AZIMUTHS_RAD = np.deg2rad(np.arange(0, 360, 5))
FFT_LENGTH = 1 << 14
COHERENCE_FFT = 1 << 11
ILD_BAND_HZ = (50.0, 20000.0)
ITD_BANDS_HZ = ((100, 400), (400, 800), (800, 1500), (100, 1500))
COHERENCE_HZ = np.linspace(100, 2000, 60)
LIMIT_ILD_DB, LIMIT_ITD_US, LIMIT_SPEED = 2.5, 60.0, 100.0
REFERENCE = "MIT_KEMAR_normal_pinna.sofa"
OTHER_HEADS = ("CIPIC_subject_003.sofa", "LISTEN_IRC_1002.sofa", "FHK_KU100_L2354.sofa")
#: Decoders of others: file, and what its filters want in place of SN3D (gains of W, Y, Z, X).
OTHERS = {
    "omnitone (SADIE)": ("omnitone_sh_hrir_order_1.wav", np.ones(4)),
    "JSAmbisonics (IRC 1008)": ("jsambi_HOA1_IRC_1008_virtual.wav", np.array([1, 3**0.5, 3**0.5, 3**0.5])),
}


@dataclass(frozen=True)
class Cues:
    """ild_db (M,) and itd_s {band: (M,)}, left positive, of M pairs of ears."""

    ild_db: NDArray[np.float64]
    itd_s: dict[tuple[int, int], NDArray[np.float64]]


def cues(responses: NDArray[np.floating], rate: float) -> Cues:
    """Of impulse responses (M, 2, L)."""
    frequency_hz = np.fft.rfftfreq(FFT_LENGTH, 1 / rate)
    left, right = np.fft.rfft(responses, FFT_LENGTH).transpose(1, 0, 2)
    band = (frequency_hz >= ILD_BAND_HZ[0]) & (frequency_hz <= ILD_BAND_HZ[1])
    powers = [np.sum(np.abs(ear[:, band]) ** 2, axis=1) for ear in (left, right)]
    # Below 100 Hz measured responses say little; from there on the phase is followed upwards.
    lowest, highest = ITD_BANDS_HZ[0][0], max(high for _, high in ITD_BANDS_HZ)
    band = (frequency_hz >= lowest) & (frequency_hz <= highest)
    phase = np.unwrap(np.angle(left * right.conj())[:, band], axis=1)
    delay_s = phase / (2 * np.pi * frequency_hz[band])
    inside = {(a, b): (frequency_hz[band] >= a) & (frequency_hz[band] <= b) for a, b in ITD_BANDS_HZ}
    itd_s = {limits: delay_s[:, mask].mean(axis=1) for limits, mask in inside.items()}
    return Cues(10 * np.log10(powers[0] / powers[1]), itd_s)


def set_coherence(hrir_set: HrirSet) -> NDArray[np.float64]:
    """Interaural coherence (60,) at COHERENCE_HZ that a diffuse field has through the set."""
    spectrum = np.fft.rfft(hrir_set.hrirs, COHERENCE_FFT)
    covariance = np.einsum("mef,m,mgf->feg", spectrum, hrir_set.weights, spectrum.conj(), optimize=True)
    return _coherence(covariance, hrir_set.sample_rate)


def decoder_coherence(filters: NDArray[np.floating], rate: float) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(filters, COHERENCE_FFT)
    return _coherence(np.einsum("ecf,c,gcf->feg", spectrum, DIFFUSE_COVARIANCE, spectrum.conj()), rate)


def _coherence(covariance: NDArray[np.complex128], rate: float) -> NDArray[np.float64]:
    power = covariance[:, 0, 0].real * covariance[:, 1, 1].real
    coherence = np.abs(covariance[:, 0, 1]) / np.sqrt(np.maximum(power, 1e-30))
    return np.interp(COHERENCE_HZ, np.fft.rfftfreq(COHERENCE_FFT, 1 / rate), coherence)


def row(filters: NDArray[np.floating], rate: float, reference: HrirSet) -> dict[str, float]:
    """The figures of one decoder: filters (2, 4, L), ears x (W, Y, Z, X) in SN3D."""
    waves = ambisonics.gains(AZIMUTHS_RAD, np.zeros_like(AZIMUTHS_RAD))
    heard = cues(np.einsum("ecl,cm->mel", filters, waves), rate)
    measured = cues(np.stack([reference.nearest(a) for a in AZIMUTHS_RAD]), reference.sample_rate)
    ild = np.abs(heard.ild_db - measured.ild_db)
    figures = {"ILD mean dB": ild.mean(), "ILD largest dB": ild.max()}
    for limits in ITD_BANDS_HZ:
        error_s = np.abs(heard.itd_s[limits] - measured.itd_s[limits])
        figures[f"ITD {limits[0]}-{limits[1]} us"] = 1e6 * error_s.mean()
    apart = np.abs(decoder_coherence(filters, rate) - set_coherence(reference))
    return {name: float(value) for name, value in figures.items()} | {"coherence": float(apart.mean())}


def others_filters(path: Path, gains: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """(2, 4, L) of a symmetric set of one ear (4, L): the right ear is the left's with Y negated."""
    filters, rate = soundfile.read(path, always_2d=True)
    left = filters.T[:4] * gains[:, None]
    return np.stack([left, MIRROR_Y[:, None] * left]), rate


def cube_filters(hrir_set: HrirSet) -> NDArray[np.float64]:
    """Eight virtual loudspeakers in the corners of a cube, basic decoding."""
    corners = np.array([[x, y, z] for x in (1, -1) for y in (1, -1) for z in (1, -1)]) / 3**0.5
    feeds = np.stack([np.ones(8), 3 * corners[:, 1], 3 * corners[:, 2], 3 * corners[:, 0]]) / 8
    hrirs = hrir_set.hrirs[hrir_set.nearest_index(corners)].astype(np.float64)
    return np.einsum("mel,cm->ecl", hrirs, feeds)


def speed(decoder: BinauralDecoder, seconds: float, runs: int = 5) -> float:
    """Seconds of a field with a turning head that one core renders in a second: the best run, in CPU time."""
    foa = np.random.default_rng(0).standard_normal((4, round(seconds * RATE))).astype(np.float32)
    frames = np.arange(round(25 * seconds)) / 25
    path = sphere.rotation_matrix(0.4 * frames, 0.2 * np.sin(frames), 0.05 * np.sin(2 * frames))
    spent = []
    for _ in range(runs):
        began = time.process_time()
        render_binaural(foa, decoder, path, 25.0, RATE)
        spent.append(time.process_time() - began)
    return seconds / min(spent)


def table(folder: Path) -> dict[str, dict[str, float]]:
    reference = hrtf.load_sofa(folder / REFERENCE, RATE)
    rows = {"ours, from the same head": row(BinauralDecoder(reference).filters, RATE, reference)}
    for name, (file, gains) in OTHERS.items():
        if (folder / file).is_file():
            rows[name] = row(*others_filters(folder / file, gains), reference)
    rows["cube of loudspeakers, same head"] = row(cube_filters(reference), RATE, reference)
    rows["ours, from a sphere"] = row(BinauralDecoder(hrtf.spherical_head(RATE)).filters, RATE, reference)
    for file in OTHER_HEADS:
        if (folder / file).is_file():
            other = BinauralDecoder(hrtf.load_sofa(folder / file, RATE))
            rows[f"ours, from {Path(file).stem}"] = row(other.filters, RATE, reference)
    return rows


def markdown(figures: dict) -> str:
    names = list(next(iter(figures["decoders"].values())))
    lines = ["| decoder | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for decoder, values in figures["decoders"].items():
        cells = [f"{v:.3f}" if n == "coherence" else f"{v:.1f}" for n, v in values.items()]
        lines.append(f"| {decoder} | " + " | ".join(cells) + " |")
    return "\n".join(
        [*lines, "", f"Speed: {figures['times_real_time_per_core']:.0f} times real time on one core."]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).resolve().parents[2] / "shared" / "media" / "hrir"
    parser.add_argument("--hrir", type=Path, default=default, help=f"folder of {REFERENCE} and the others")
    parser.add_argument("--seconds", type=float, default=8.0, help="of sound for the speed (default: 8)")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    try:
        decoders = table(options.hrir)
        timed = speed(BinauralDecoder(hrtf.load_sofa(options.hrir / REFERENCE, RATE)), options.seconds)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    figures = {"decoders": decoders, "times_real_time_per_core": timed}
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(figures, indent=1) + "\n")
    print(markdown(figures))
    ours = next(iter(decoders.values()))
    reached = ours["ILD mean dB"] <= LIMIT_ILD_DB and ours["ITD 100-400 us"] <= LIMIT_ITD_US
    reached = reached and timed >= LIMIT_SPEED
    bounds = f"ILD {LIMIT_ILD_DB} dB, ITD {LIMIT_ITD_US:g} us, {LIMIT_SPEED:g} times real time"
    print(f"{'Within' if reached else 'BEYOND'} the bounds: {bounds}.")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
