"""How far two ears drift from the truth: ILD and ITD errors of decoded audio, per frame.

Cheap figures for the logs of the codec stage. Signs as everywhere: ILD in dB, positive = left louder; ITD in
seconds, positive = left ear first. Legend: C clips, S samples, F frames of 0.1 s, K bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

FRAME_S = 0.1
ACTIVE_BELOW_PEAK_DB = 40.0  # frames further below the loudest frame of their clip are not compared
MAX_ITD_S = 1e-3
ITD_STEP_S = 5e-6
LOW_BAND_HZ = (100.0, 1500.0)


def frames_of(audio: Tensor, sample_rate: int) -> Tensor:
    """(C, 2, S) -> (C, 2, F, L): consecutive frames of FRAME_S."""
    length = round(FRAME_S * sample_rate)
    return audio.unfold(-1, length, length)


def active_frames(frames: Tensor) -> Tensor:
    """(C, 2, F, L) -> (C, F) bool: within ACTIVE_BELOW_PEAK_DB of the clip's loudest frame."""
    power = frames.square().mean(dim=(1, 3))
    floor = power.amax(dim=1, keepdim=True) * 10 ** (-ACTIVE_BELOW_PEAK_DB / 10)
    return power > floor.clamp_min(1e-9)


def ild_db(frames: Tensor) -> Tensor:
    """(C, 2, F, L) -> (C, F)."""
    level = 10 * torch.log10(frames.square().mean(dim=-1) + 1e-10)
    return level[:, 0] - level[:, 1]


def itd_s(frames: Tensor, sample_rate: int, band_hz: tuple[float, float] | None = None) -> Tensor:
    """(C, 2, F, L) -> (C, F): the delay that best explains the cross-spectrum.

    band_hz None: GCC-PHAT (Knapp and Carter 1976), every bin counts alike. With a band: the interaural
    phase of the bins in it, weighted by their energy.
    """
    length = frames.shape[-1]
    window = torch.hann_window(length, device=frames.device)
    spectrum = torch.fft.rfft(frames * window, n=2 * length)
    cross = spectrum[:, 0] * spectrum[:, 1].conj()
    frequency = torch.fft.rfftfreq(2 * length, 1 / sample_rate, device=frames.device)
    if band_hz is None:
        cross = cross / (cross.abs() + 1e-12)
    else:
        keep = (frequency >= band_hz[0]) & (frequency <= band_hz[1])
        cross, frequency = cross[..., keep], frequency[keep]
    steps = round(MAX_ITD_S / ITD_STEP_S)
    delays = torch.arange(-steps, steps + 1, device=frames.device) * ITD_STEP_S
    angle = 2 * torch.pi * frequency[:, None] * delays
    score = cross.real @ angle.cos() + cross.imag @ angle.sin()
    return delays[score.argmax(dim=-1)]


def interaural_errors(estimate: Tensor, truth: Tensor, sample_rate: int) -> dict[str, float]:
    """(C, 2, S), (C, 2, S) -> mean |ILD error| in dB, median |ITD error| in us by GCC-PHAT and by phase."""
    estimate, truth = frames_of(estimate, sample_rate), frames_of(truth, sample_rate)
    active = active_frames(truth)
    if not active.any():
        return {}

    def itd_error_us(band_hz) -> float:
        difference = itd_s(estimate, sample_rate, band_hz) - itd_s(truth, sample_rate, band_hz)
        return float(difference[active].abs().median() * 1e6)

    return {
        "ild_error_db": float((ild_db(estimate) - ild_db(truth))[active].abs().mean()),
        "itd_gcc_error_us": itd_error_us(None),
        "itd_phase_error_us": itd_error_us(LOW_BAND_HZ),
    }
