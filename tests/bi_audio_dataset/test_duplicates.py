import io

import cv2
import numpy as np
import pytest
import soundfile

from bi_audio_dataset import duplicates
from bi_audio_dataset.duplicates import (
    DuplicateFilter,
    Fingerprints,
    audio_fingerprint,
    picture_hash,
    to_text,
)

RATE = 22050
CONFIG = DuplicateFilter()


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(0, 255, (6, 12)).astype(np.float32)
    return cv2.resize(coarse, (256, 128), interpolation=cv2.INTER_CUBIC)


def sound(seed: int, seconds: float = 8.0) -> np.ndarray:
    """Noise whose colour changes all the time, as real sounds' does."""
    rng = np.random.default_rng(seed)
    blocks = []
    for _ in range(round(seconds / 0.25)):
        spectrum = np.fft.rfft(rng.standard_normal(RATE // 4))
        bands = np.repeat(10 ** rng.uniform(-1.5, 0, 40), len(spectrum) // 40 + 1)[: len(spectrum)]
        blocks.append(np.fft.irfft(spectrum * bands, RATE // 4))
    return 0.1 * np.concatenate(blocks)


def prints(items: list[tuple[int | None, np.ndarray | None]]) -> Fingerprints:
    """Of clips: (seed of the picture, signal), None for none."""
    texts = []
    for seed, signal in items:
        hashes = [] if seed is None else [picture_hash(picture(seed + k)) for k in range(duplicates.HASHES)]
        words = np.zeros(0, np.uint16) if signal is None else audio_fingerprint(signal, RATE)
        texts.append(to_text(hashes, words))
    return Fingerprints.parse(texts)


def differing(a: int, b: int) -> int:
    return bin(a ^ b).count("1")


def test_hash_keeps_through_coding_and_scaling_and_tells_scenes_apart():
    first, other = picture(1), picture(2)
    jpeg = cv2.imencode(".jpg", first.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    coded = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE).astype(np.float32)
    smaller = cv2.resize(first, (160, 80), interpolation=cv2.INTER_AREA) * 0.8 + 10
    assert differing(picture_hash(first), picture_hash(coded)) <= 4
    assert differing(picture_hash(first), picture_hash(smaller)) <= 4
    assert differing(picture_hash(first), picture_hash(other)) > 16


def test_fingerprint_keeps_through_gain_noise_and_coding_and_tells_sounds_apart():
    signal = sound(1)
    buffer = io.BytesIO()
    soundfile.write(buffer, signal, RATE, format="OGG", subtype="VORBIS")
    buffer.seek(0)
    coded = soundfile.read(buffer)[0]
    noisy = 0.3 * signal + 0.001 * np.random.default_rng(9).standard_normal(len(signal))
    both = Fingerprints.parse(
        [to_text([], audio_fingerprint(s, RATE)) for s in (signal, coded, noisy, sound(2))]
    )
    pairs = np.array([[0, 1], [0, 2], [0, 3]])
    error = duplicates.audio_error(both, pairs, np.zeros(3, np.int64), 2.0)
    assert error[0] < 0.1 and error[1] < 0.15
    assert 0.4 < error[2] < 0.6


def test_shifted_sounds_meet_at_their_shift():
    signal = sound(3, 10.0)
    found = prints([(None, signal[: 8 * RATE]), (None, signal[round(1.2 * RATE) : round(9.2 * RATE)])])
    for shift, low in ((-12, True), (0, False)):
        error = duplicates.audio_error(found, np.array([[0, 1]]), np.array([shift]), 2.0)
        assert bool(error[0] < 0.1) is low
    matches = duplicates.find_matches(found, np.arange(2), CONFIG)
    assert matches.pairs.tolist() == [[0, 1]]
    assert matches.same_audio.tolist() == [True] and matches.same_picture.tolist() == [False]
    none_common = duplicates.audio_error(found, np.array([[0, 1]]), np.array([70]), 2.0)
    assert none_common.tolist() == [1.0]


def test_silence_and_flat_pictures_match_nothing():
    assert len(audio_fingerprint(np.zeros(8 * RATE), RATE)) == 0
    found = prints([(None, None)] * 5)
    assert duplicates.find_matches(found, np.arange(5), CONFIG).pairs.shape == (0, 2)


def test_what_is_the_same_is_found_among_many():
    """0 and 50 agree in both, 1 and 51 in the picture, 2 and 52 in the sound; 3 and 53 are one recording."""
    sounds = [sound(100 + i, 3.0) for i in range(60)]
    items = [(1000 + 10 * i, sounds[i]) for i in range(60)]
    items[50], items[53] = items[0], items[3]
    items[51] = (items[1][0], sounds[51])
    items[52] = (items[52][0], sounds[2])
    recordings = np.arange(60)
    recordings[53] = 3
    found = duplicates.find_matches(prints(items), recordings, CONFIG)
    outcome = {
        tuple(pair): (bool(p), bool(a))
        for pair, p, a in zip(found.pairs.tolist(), found.same_picture, found.same_audio, strict=True)
    }
    assert outcome == {(0, 50): (True, True), (1, 51): (True, False), (2, 52): (False, True)}


def test_key_that_everybody_has_is_left_out():
    words = np.full((200, 30), 7, np.uint16)
    many = Fingerprints(np.zeros((200, 4), np.uint64), np.zeros(200, bool), words, np.full(200, 30))
    assert len(duplicates.find_matches(many, np.arange(200), CONFIG).pairs) == 0


@pytest.mark.parametrize("windows", [(20, 20), (40, 40), (70, 1), (1, 70), (70, 70, 70)])
def test_a_camera_that_stands_still_does_not_hide_its_copies(windows):
    """Recordings of one view: all windows have the same picture hashes, each a sound of its own."""
    home = np.repeat(np.arange(len(windows)), windows)
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 16, (len(home), 40)).astype(np.uint16)
    still = np.tile(np.array([5, 6, 7, 8], np.uint64) << np.uint64(40), (len(home), 1))
    found = duplicates.find_matches(
        Fingerprints(still, np.ones(len(home), bool), words, np.full(len(home), 40)), home, CONFIG
    )
    assert found.same_picture.all() and not found.same_audio.any()
    assert (found.pairs[:, 0] < found.pairs[:, 1]).all()
    joined = duplicates.groups(len(windows), home[found.pairs])
    assert joined.tolist() == [0] * len(windows)


def test_every_window_of_a_copied_still_recording_is_found():
    """Two recordings of 40 windows, the same in both: one picture everywhere, sounds pairwise."""
    count = 40
    words = np.random.default_rng(1).integers(0, 1 << 16, (count, 40)).astype(np.uint16)
    still = np.tile(np.array([5, 6, 7, 8], np.uint64) << np.uint64(40), (2 * count, 1))
    both = Fingerprints(still, np.ones(2 * count, bool), np.tile(words, (2, 1)), np.full(2 * count, 40))
    found = duplicates.find_matches(both, np.repeat([0, 1], count), CONFIG)
    same = found.pairs[found.same_picture & found.same_audio]
    assert same.tolist() == [[i, i + count] for i in range(count)]


def test_recordings_in_any_order_keep_the_sign_of_the_shift():
    signal = sound(3, 10.0)
    parts = [signal[: 8 * RATE], signal[round(1.2 * RATE) : round(9.2 * RATE)]]
    found = prints([(None, part) for part in parts])
    for recordings in ([0, 1], [1, 0]):
        pairs, offsets = duplicates._audio_candidates(found, np.array(recordings))
        assert pairs.tolist() == [[0, 1]] and offsets.tolist() == [-12]


def test_text_round_trip():
    words = np.array([1, 65535, 512], np.uint16)
    back = Fingerprints.parse([to_text([1, 2**64 - 1, 3, 4], words), {}])
    assert back.picture[0].tolist() == [1, 2**64 - 1, 3, 4]
    assert back.words[0].tolist() == words.tolist()
    assert back.has_picture.tolist() == [True, False] and back.count.tolist() == [3, 0]


def test_groups_are_named_after_their_first():
    pairs = np.array([[1, 4], [4, 2], [5, 6]])
    assert duplicates.groups(7, pairs).tolist() == [0, 1, 1, 3, 1, 5, 5]
    assert duplicates.groups(3, np.zeros((0, 2), np.int64)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("limit", "same"), [(0.5 / 256, False), (1.5 / 256, True)])
def test_picture_limit_is_a_share_of_all_bits(limit, same):
    a = to_text([5, 6, 7, 8], np.zeros(0, np.uint16))
    b = to_text([5, 6, 7, 9], np.zeros(0, np.uint16))  # 8 and 9 differ in one bit
    found = duplicates.find_matches(
        Fingerprints.parse([a, b]), np.arange(2), DuplicateFilter(max_picture_error=limit)
    )
    assert (len(found.pairs) == 1) is same
