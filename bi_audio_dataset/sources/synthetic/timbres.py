"""What each procedural class of sound is made of.

A struck class is a body (rendered once per sound, reused for each strike) plus a noise burst of its own at
every strike; a humming class is a one-period wave table read at a varying pitch; a bird is a frequency sweep.
Every function returns float32 mono samples whose first sample is the onset, at a peak near 1. None of them
knows about events, loudness or classes: sounds.py does that.

`brightness` in [0, 1] moves energy upwards. Each timbre has some broadband part, because interaural cues can
be heard and measured only where there is energy, and the frames of a pure low tone would have none above it.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

TABLE_SIZE = 4096


def shaped_noise(
    rng: np.random.Generator, num_samples: int, sample_rate: int, low_hz: float, high_hz: float
) -> np.ndarray:
    """Gaussian noise of unit RMS between low_hz and high_hz, with sides of 12 dB per octave. (N,) float32."""
    size = fft.next_fast_len(max(num_samples, 256), real=True)
    spectrum = fft.rfft(rng.standard_normal(size, dtype=np.float32))
    frequency = np.maximum(fft.rfftfreq(size, 1.0 / sample_rate), 1.0)
    spectrum *= (1.0 / (1.0 + (low_hz / frequency) ** 2) / (1.0 + (frequency / high_hz) ** 2)).astype(
        np.float32
    )
    noise = fft.irfft(spectrum, size)[:num_samples]
    return (noise / (np.sqrt(np.mean(noise**2)) + 1e-9)).astype(np.float32)


def decaying_modes(
    frequencies_hz,
    amplitudes,
    decays_s,
    duration_s: float,
    sample_rate: int,
    glide: float = 0.0,
    glide_s: float = 0.04,
) -> np.ndarray:
    """A sum of exponentially decaying cosines; decays_s are times to -60 dB; `glide` is the relative pitch
    excess at the onset, which dies away with glide_s. (N,) float32, peak 1."""
    time = np.arange(int(round(duration_s * sample_rate))) / sample_rate
    warped = time + glide * glide_s * (1.0 - np.exp(-time / glide_s))
    signal = np.zeros(len(time), np.float32)
    for frequency, amplitude, decay in zip(frequencies_hz, amplitudes, decays_s, strict=True):
        if frequency < 0.45 * sample_rate:
            length = min(len(time), int(1.2 * decay * sample_rate) + 1)
            envelope = amplitude * np.exp(-6.91 / decay * time[:length])
            signal[:length] += (envelope * np.sin(2 * np.pi * frequency * warped[:length])).astype(np.float32)
    attack = min(len(time), max(2, int(0.0003 * sample_rate)))
    signal[:attack] *= np.linspace(0.3, 1.0, attack, dtype=np.float32)
    return signal / (np.abs(signal).max() + 1e-9)


def noise_burst(
    rng: np.random.Generator, decay_s: float, sample_rate: int, low_hz: float, high_hz: float
) -> np.ndarray:
    """A burst of noise that starts at full level and falls by 60 dB in decay_s. (N,) float32, peak near 1."""
    num_samples = max(8, int(round(decay_s * sample_rate)))
    envelope = np.exp(-6.91 * np.arange(num_samples, dtype=np.float32) / num_samples)
    return 0.4 * envelope * shaped_noise(rng, num_samples, sample_rate, low_hz, high_hz)


# --- struck and bouncing bodies ---------------------------------------------------------------------------


def bell_body(pitch_hz: float, brightness: float, decay_s: float, sample_rate: int) -> np.ndarray:
    """The partials of a minor-third bell (hum, prime, tierce, quint, nominal and above), each a slightly
    detuned pair, which makes the slow beating of a cast bell; higher ones die sooner."""
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.52, 3.01, 4.1, 5.4])
    amplitudes = np.array([0.45, 0.8, 0.6, 0.4, 1.0, 0.45, 0.5, 0.35, 0.22])
    amplitudes = amplitudes * (0.6 + 0.8 * brightness) ** np.maximum(np.log2(ratios), 0.0)
    decays = decay_s / np.maximum(ratios, 0.5) ** 0.6
    beats = 1.0 + 0.0012 * np.array([1, -1, 1, -1, 1, -1, 1, -1, 1])
    frequencies = pitch_hz * np.concatenate([ratios, (ratios * beats)[:6]])
    amplitudes = np.concatenate([amplitudes, 0.35 * amplitudes[:6]])
    return decaying_modes(frequencies, amplitudes, np.concatenate([decays, decays[:6]]), decay_s, sample_rate)


def drum_body(pitch_hz: float, brightness: float, decay_s: float, sample_rate: int) -> np.ndarray:
    """A round membrane: the zeros of the Bessel functions as ratios, and a pitch that drops after the hit."""
    ratios = np.array([1.0, 1.59, 2.14, 2.30, 2.65, 2.92, 3.60, 4.15])
    amplitudes = np.array([0.8, 0.6, 0.5, 0.42, 0.38, 0.34, 0.32, 0.3]) * (0.5 + brightness) ** np.log2(
        ratios
    )
    return decaying_modes(pitch_hz * ratios, amplitudes, decay_s / ratios, decay_s, sample_rate, glide=0.6)


def woodblock_body(pitch_hz: float, brightness: float, decay_s: float, sample_rate: int) -> np.ndarray:
    """A few short, hard resonances, the lowest strongest."""
    ratios = np.array([0.62, 1.0, 1.57, 2.41, 3.3])
    amplitudes = np.array([0.35, 1.0, 0.55, 0.3 * (0.4 + brightness), 0.25 * (0.4 + brightness)])
    return decaying_modes(pitch_hz * ratios, amplitudes, decay_s / ratios**0.4, 1.3 * decay_s, sample_rate)


def ball_body(pitch_hz: float, brightness: float, decay_s: float, sample_rate: int) -> np.ndarray:
    """A hollow rubber ball: a thump that glides upwards (the 'boing') and the ringing of the air inside."""
    ratios = np.array([1.0, 2.0, 3.24, 4.6, 6.1])
    amplitudes = np.array([1.0, 0.6, 0.6, 0.45 * (0.4 + brightness), 0.35 * (0.4 + brightness)])
    decays = decay_s * np.array([1.0, 0.7, 1.25, 0.9, 0.7])
    return decaying_modes(pitch_hz * ratios, amplitudes, decays, 1.5 * decay_s, sample_rate, -0.45, 0.03)


# --- humming: wave tables read at a varying pitch ---------------------------------------------------------


def wave_table(amplitudes: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """One period of a sum of harmonics 1..K. (TABLE_SIZE + 1,) float32, peak 1; the last value repeats the
    first, so that linear interpolation needs no wrap."""
    spectrum = np.zeros(TABLE_SIZE // 2 + 1, np.complex64)
    spectrum[1 : len(amplitudes) + 1] = amplitudes * np.exp(1j * phases)
    table = fft.irfft(spectrum, TABLE_SIZE)
    table /= np.abs(table).max()
    return np.append(table, table[0]).astype(np.float32)


def read_table(
    table: np.ndarray, frequency_hz: np.ndarray, sample_rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read a wave table at a time-varying frequency (N,). Returns the samples and the phase in periods."""
    phase = np.cumsum(frequency_hz / sample_rate)
    position = (phase % 1.0) * TABLE_SIZE
    index = position.astype(np.int32)
    fraction = (position - index).astype(np.float32)
    return table[index] * (1.0 - fraction) + table[index + 1] * fraction, phase


def slow_noise(rng: np.random.Generator, num_samples: int, sample_rate: int, rate_hz: float) -> np.ndarray:
    """A random curve in [-1, 1] with about rate_hz turning points a second, linear between them. (N,)."""
    knots = rng.uniform(-1.0, 1.0, int(num_samples / sample_rate * rate_hz) + 3)
    return np.interp(np.arange(num_samples) * (rate_hz / sample_rate), np.arange(len(knots)), knots)


def highest_harmonic(pitch_hz: float, ceiling_hz: float, sample_rate: int) -> int:
    return max(1, int(min(ceiling_hz, 0.42 * sample_rate) / pitch_hz))


def engine_hum(
    rng: np.random.Generator, pitch_hz: float, brightness: float, num_samples: int, sample_rate: int
) -> np.ndarray:
    """A four-stroke motor: firing pulses at pitch_hz through an exhaust resonance, four uneven cylinders, an
    idle that speeds up with load, and exhaust noise that puffs with each pulse."""
    load = 0.5 + 0.5 * slow_noise(rng, num_samples, sample_rate, 1.2)
    frequency = pitch_hz * (0.94 + 0.16 * load)
    harmonics = np.arange(1, 4 * highest_harmonic(1.15 * pitch_hz, 5000.0, sample_rate) + 1) / 4.0
    strength = np.where(harmonics % 1.0 == 0.0, 1.0, 0.12)  # quarter orders: the cylinders differ
    hertz = harmonics * pitch_hz
    resonance = 1.0 + 2.5 * np.exp(-(((hertz - 5 * pitch_hz) / (2 * pitch_hz)) ** 2))
    amplitudes = strength * resonance / harmonics ** (1.1 - 0.5 * brightness) / (1.0 + (60.0 / hertz) ** 2)
    phases = np.random.default_rng(7).uniform(0, 0.6 * np.pi, len(harmonics))
    hum, cycles = read_table(wave_table(amplitudes, phases), frequency / 4.0, sample_rate)
    puff = np.exp(-5.0 * ((4.0 * cycles) % 1.0)).astype(np.float32)
    noise = shaped_noise(rng, num_samples, sample_rate, 500.0, 2500.0 + 2500.0 * brightness)
    return (0.7 + 0.3 * load).astype(np.float32) * (hum + (0.08 + 0.08 * brightness) * puff * noise)


def bee_hum(
    rng: np.random.Generator, pitch_hz: float, brightness: float, num_samples: int, sample_rate: int
) -> np.ndarray:
    """A wing-beat sawtooth with vibrato, wandering pitch and flutter."""
    time = np.arange(num_samples) / sample_rate
    drift = slow_noise(rng, num_samples, sample_rate, 2.5)
    frequency = pitch_hz * (1.0 + 0.07 * drift + 0.025 * np.sin(2 * np.pi * 6.3 * time))
    harmonics = np.arange(1, highest_harmonic(1.1 * pitch_hz, 7000.0, sample_rate) + 1)
    formant = 1.0 + 2.0 * np.exp(-(((harmonics * pitch_hz - 1800.0) / 900.0) ** 2))
    table = wave_table(formant / harmonics ** (1.15 - 0.45 * brightness), np.full(len(harmonics), -np.pi / 2))
    flutter = 1.0 - 0.3 * (0.5 + 0.5 * np.sin(2 * np.pi * (23.0 + 4.0 * drift) * time))
    buzz = read_table(table, frequency, sample_rate)[0]
    return flutter.astype(np.float32) * (
        buzz + 0.03 * shaped_noise(rng, num_samples, sample_rate, 400.0, 6000.0)
    )


def siren_hum(
    rng: np.random.Generator,
    pitch_hz: float,
    brightness: float,
    wails_per_s: float,
    two_tone: bool,
    num_samples: int,
    sample_rate: int,
) -> np.ndarray:
    """A horn that wails between pitch_hz and 1.5 pitch_hz, or jumps between pitch_hz and its fourth."""
    cycle = np.arange(num_samples) * (wails_per_s / sample_rate)
    if two_tone:
        step = np.clip(20.0 * (np.abs((cycle % 1.0) - 0.5) - 0.25) + 0.5, 0.0, 1.0)
        frequency = pitch_hz * (1.0 + step / 3.0)
    else:
        frequency = pitch_hz * 1.5 ** (0.5 - 0.5 * np.cos(2 * np.pi * cycle))
    harmonics = np.arange(1, highest_harmonic(1.5 * pitch_hz, 8000.0, sample_rate) + 1)
    amplitudes = np.where(harmonics % 2 == 1, 1.0, 0.35) / harmonics ** (1.5 - 0.6 * brightness)
    table = wave_table(amplitudes, np.full(len(harmonics), -np.pi / 2))
    horn = read_table(table, frequency, sample_rate)[0]
    return horn + 0.04 * shaped_noise(rng, num_samples, sample_rate, 200.0, 5000.0)


def bird_chirp(
    rng: np.random.Generator,
    pitch_hz: float,
    brightness: float,
    sweep: float,
    num_samples: int,
    sample_rate: int,
) -> np.ndarray:
    """One chirp: a sweep over 2**sweep octaves about pitch_hz, bent in the middle, with a soft octave, breath
    noise, and a small puff of air at the attack that carries the low end."""
    position = np.linspace(0.0, 1.0, num_samples)
    bend = sweep * (position - 0.5) + 0.18 * np.sin(np.pi * position)
    phase = 2 * np.pi * np.cumsum(pitch_hz * 2.0**bend) / sample_rate
    tone = np.sin(phase) + (0.1 + 0.25 * brightness) * np.sin(2 * phase)
    breath = shaped_noise(rng, num_samples, sample_rate, 300.0, 4000.0)
    envelope = (
        np.minimum(1.0, position * num_samples / (0.006 * sample_rate))
        * np.cos(0.5 * np.pi * position) ** 0.7
    )
    puff = np.exp(-8.0 * position) * breath
    return (envelope * (0.8 * tone + 0.05 * breath + 0.1 * puff)).astype(np.float32)
