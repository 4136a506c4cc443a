"""A small listening test with sounds, a picture and a server, and a listener who asks by urllib."""

import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import soundfile

from bi_audio_dataset import media
from visaudio.evaluation.listen import make_test
from visaudio.evaluation.listening.server import ListeningServer
from visaudio.evaluation.listening.session import Session

RATE = 16000


def noise(seed, seconds=0.6, left=1.0, right=1.0, rate=RATE):
    wave = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate))
    return np.stack([left * wave, right * wave]).astype(np.float32)


def write(path: Path, audio, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio.T, rate)
    return path


def make_video(path, seconds=0.8):
    """Sixteen pixels wide, H.264."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.zeros((round(seconds * 10), 16, 16, 3), np.uint8)
    media.write_video(path, frames, 10.0)
    return path


def write_in_place_of(path: Path, audio, rate=RATE, subtype="FLOAT"):
    """A .wav, which may hold what a .flac cannot, for the .flac of that name."""
    path.unlink()
    soundfile.write(path.with_suffix(".wav"), audio.T, rate, subtype=subtype)
    return path.with_suffix(".wav")


def make_sounds(folder, systems=("alpha", "beta"), clips=3):
    """Folders of sounds: each system of its own level, rate and length."""
    for s, name in enumerate(systems):
        for k in range(clips):
            rate = RATE * (s + 1)
            audio = noise(k, 0.6 + 0.1 * s, 0.8 / (s + 1), 0.2 / (s + 1), rate)
            write(folder / name / f"clip{k}.flac", audio, rate)
    return [f"{name}={folder / name}" for name in systems]


class World:
    """A running server; `ask` is a request of the page. spoil(folder) changes the sounds before the start."""

    def __init__(self, folder, videos=False, spoil=lambda folder: None, **settings):
        given = make_sounds(folder)
        spoil(folder)
        if videos:
            for k in range(2):
                make_video(folder / "videos" / f"clip{k}.mp4")
        self.said = []
        self.output = folder / "answers.jsonl"
        pictures = folder / "videos" if videos else None
        self.test = make_test(given, self.output, pictures, say=self.said.append, **settings)
        self.server = ListeningServer(Session(self.test))
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def raw(self, place, body=None, headers=None, token=None, method=None):
        """(status, headers, bytes)."""
        root = self.server.url if token is None else self.server.url.replace(self.server.token, token)
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = (
            {"Content-Type": "application/json"} | (headers or {}) if data is not None else headers or {}
        )
        request = urllib.request.Request(root + place, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def ask(self, request, expected=200, **body):
        status, _, data = self.raw(f"api/{request}", body)
        assert status == expected, data
        return json.loads(data)

    def sound(self, name):
        """((2, S), rate) of a hidden sound, as a browser would decode it."""
        status, headers, data = self.raw(f"media/{name}")
        assert status == 200
        path = self.output.with_name("heard.mp4" if headers["Content-Type"] == "video/mp4" else "heard.flac")
        path.write_bytes(data)
        return media.read_audio(path)

    def side(self, name):
        audio, _ = self.sound(name)
        left, right = (audio**2).mean(axis=1)
        return "left" if left > right else "right"

    def pass_check(self, listener):
        tones = self.ask("check", listener=listener)["tones"]
        said = [self.side(name) for name in tones]
        assert self.ask("checked", listener=listener, said=said) == {"passed": True}

    def answer(self, listener, trial, choose):
        """choose(kind, question) for every question."""
        given = {q["name"]: choose(trial["kind"], q["name"]) for q in trial["questions"]}
        plays = [1] * len(trial["sounds"])
        return self.ask("answer", listener=listener, trial=trial["trial"], given=given, plays=plays)
