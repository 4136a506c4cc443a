"""A listener at the running server: the whole way, resumed, with bad input, and with nothing that leaks."""

import json
import re
import socket

import numpy as np
import pytest
from listening_world import World, noise, write_in_place_of

from visaudio.evaluation.listening import answers, trials
from visaudio.evaluation.listening.loudness import loudness_lufs
from visaudio.evaluation.listening.questions import NAMES, asked


@pytest.fixture
def world_of(tmp_path):
    worlds = []

    def start(name="w", **settings):
        worlds.append(World(tmp_path / name, **settings))
        return worlds[-1]

    yield start
    for made in worlds:
        made.close()


def good(kind, question):
    """Different for each question, so that none can be taken for another."""
    number = NAMES.index(question)
    return 5 - number if kind == "rating" else ("first", "second", "same")[number % 3]


def test_a_listener_from_the_first_trial_to_the_last(world_of):
    world = world_of(trials=6, seed=3)
    assert world.ask("start", listener="eva") == {"listener": "eva", "done": 0, "total": 6, "passed": False}
    world.pass_check("eva")
    assert world.ask("start", listener="eva")["passed"]
    for number in range(6):
        trial = world.ask("next", listener="eva")
        assert (trial["trial"], trial["done"], trial["total"]) == (number, number, 6)
        assert world.answer("eva", trial, good) == {"stored": True}
    assert world.ask("next", listener="eva") == {"finished": True, "done": 6, "total": 6}
    check, *rows = answers.read(world.output)
    assert check["kind"] == "check" and check["passed"] and check["said"] == check["sides"]
    plan = trials.plan(["alpha", "beta"], ["clip0", "clip1", "clip2"], "eva", 6, 3)
    for row, trial in zip(rows, plan, strict=True):
        assert (row["trial"], row["kind"], row["clip"]) == (trial.number, trial.kind, trial.clip)
        assert row["order"] == list(trial.order) and row["systems"] == sorted(trial.order)
        assert (row["seed"], row["listener"], row["plan"]) == (3, "eva", world.test.fingerprint)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", row["time"]) and row["seconds"] >= 0
        # without pictures, two questions
        expected = {q: good(row["kind"], q) for q in ("spatial_impression", "realism")}
        assert row["ratings" if row["kind"] == "rating" else "choices"] == expected


def test_it_goes_on_where_it_was_also_after_a_restart(world_of, tmp_path):
    world = world_of(trials=4)
    world.pass_check("eva")
    first = world.ask("next", listener="eva")
    again = world.ask("next", listener="eva")  # the page loaded anew
    assert again["trial"] == first["trial"] == 0 and set(again["sounds"]).isdisjoint(first["sounds"])
    assert world.raw(f"media/{first['sounds'][0]}")[0] == 404  # forgotten
    world.answer("eva", again, good)
    world.close()
    restarted = world_of(trials=4)
    assert restarted.said[-1].endswith("1 answers of this test, which goes on")
    assert restarted.ask("start", listener="eva")["done"] == 1
    restarted.ask("next", listener="eva", expected=403)  # headphones once more
    restarted.pass_check("eva")
    assert restarted.ask("next", listener="eva")["trial"] == 1
    assert restarted.ask("start", listener="otto")["done"] == 0
    # with other settings it is another test
    other = world_of(trials=5)
    assert other.ask("start", listener="eva")["done"] == 0
    assert "answers of tests with other systems, clips or settings" in other.said[-1]


@pytest.mark.parametrize(
    "given",
    [
        {"spatial_impression": 6, "realism": 3},
        {"spatial_impression": 0, "realism": 3},
        {"spatial_impression": 2.5, "realism": 3},
        {"spatial_impression": 3.0, "realism": 3},
        {"spatial_impression": True, "realism": 3},
        {"spatial_impression": "3", "realism": 3},
        {"spatial_impression": None, "realism": 3},
        {"spatial_impression": [3], "realism": 3},
        {"spatial_impression": 3},
        {"spatial_impression": 3, "realism": 3, "temporal_alignment": 3},
        {"spatial_impression": 3, "realism": 3, "loudness": 3},
        {},
        [],
        "5",
        None,
    ],
)
def test_ratings_out_of_range_are_refused(rating_world, given):
    world, trial = rating_world
    body = {"listener": "eva", "trial": trial["trial"], "given": given, "plays": [1]}
    assert "error" in world.ask("answer", expected=400, **body)
    assert len(answers.read(world.output)) == 1  # the headphones check


@pytest.mark.parametrize("plays", [[0], [], [1, 1], [True], [-1], ["1"], None, [10**9]])
def test_sounds_that_were_not_played_are_refused(rating_world, plays):
    world, trial = rating_world
    given = {"spatial_impression": 3, "realism": 3}
    world.ask("answer", expected=400, listener="eva", trial=trial["trial"], given=given, plays=plays)


@pytest.fixture(scope="module")
def rating_world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("ratings"), trials=2, kinds=("rating",))
    world.pass_check("eva")
    yield world, world.ask("next", listener="eva")
    world.close()


def test_choices_are_of_the_three(world_of):
    world = world_of(trials=2, kinds=("pair",))
    world.pass_check("eva")
    trial = world.ask("next", listener="eva")
    body = {"listener": "eva", "trial": trial["trial"], "plays": [1, 1]}
    for bad in ("third", 1, None):
        world.ask("answer", expected=400, given={"spatial_impression": bad, "realism": "same"}, **body)
    world.ask("answer", expected=400, given={"spatial_impression": "first", "realism": 5}, **body)
    world.ask("answer", given={"spatial_impression": "first", "realism": "same"}, **body)


def test_an_answer_counts_once_and_for_its_own_trial(world_of):
    world = world_of(trials=2)
    world.pass_check("eva")
    world.ask("answer", expected=409, listener="eva", trial=0, given={}, plays=[1])  # nothing is playing
    trial = world.ask("next", listener="eva")
    for other in (1, -1, False, "0", None, 0.5):
        world.ask("answer", expected=409, listener="eva", trial=other, given={}, plays=[1])
    world.answer("eva", trial, good)
    given = {q["name"]: good(trial["kind"], q["name"]) for q in trial["questions"]}
    plays = [1] * len(trial["sounds"])
    world.ask("answer", expected=409, listener="eva", trial=trial["trial"], given=given, plays=plays)
    assert len(answers.read(world.output)) == 2


# -------------------- headphones


def test_the_headphones_check(world_of):
    world = world_of(trials=2)
    world.ask("next", expected=403, listener="eva")
    world.ask("checked", expected=409, listener="eva", said=["left"] * 6)
    check = world.ask("check", listener="eva")
    sides = [world.side(name) for name in check["tones"]]
    assert sorted(sides) == ["left"] * 3 + ["right"] * 3
    audio, _ = world.sound(check["volume"])
    assert np.array_equal(audio[0], audio[1]) and np.abs(audio).max() < 1
    tone, rate = world.sound(check["tones"][0])
    assert min((tone**2).mean(axis=1)) == 0 and rate == 48000
    for bad in ([], sides[:5], [*sides[:5], "middle"], None, "left"):
        world.ask("checked", expected=400, listener="eva", said=bad)
    wrong = [{"left": "right", "right": "left"}[side] for side in sides]
    assert world.ask("checked", listener="eva", said=wrong) == {"passed": False}  # turned round
    world.ask("next", expected=403, listener="eva")
    world.ask("checked", expected=409, listener="eva", said=sides)  # once only
    world.pass_check("eva")
    assert [row["passed"] for row in answers.read(world.output)] == [False, True]
    world.ask("next", expected=403, listener="otto")  # it was eva who passed


# -------------------- blindness


def test_nothing_says_which_system_it_is(world_of):
    world = world_of(trials=8, videos=True)
    world.pass_check("eva")
    told = [world.raw(name)[2].decode() for name in ("", "listen.js", "listen.css")]
    names, bodies = set(), []
    for _ in range(8):
        trial = world.ask("next", listener="eva")
        told.append(json.dumps(trial))
        names |= set(trial["sounds"])
        for name in trial["sounds"]:
            _, headers, data = world.raw(f"media/{name}")
            told.append(str(headers))
            bodies.append(data)
        world.answer("eva", trial, good)
    text = " ".join(told).lower()
    for secret in ("alpha", "beta", "clip0", "clip1", "clip2", str(world.output.parent)):
        assert secret not in text
        assert all(secret.encode() not in data for data in bodies)
    assert len(names) == len(bodies) == 8 + 4 and all(len(name) >= 16 for name in names)


def test_systems_sound_alike_but_for_themselves(world_of):
    """One rate, one length, one loudness, and each ear's level as it was to the other."""
    world = world_of(trials=6, kinds=("pair",))
    world.pass_check("eva")
    for _ in range(6):
        trial = world.ask("next", listener="eva")
        heard = [world.sound(name) for name in trial["sounds"]]
        assert {rate for _, rate in heard} == {48000}
        assert {audio.shape for audio, _ in heard} == {(2, round(0.6 * 48000))}
        levels = [loudness_lufs(audio, rate) for audio, rate in heard]
        assert levels == pytest.approx([-23.0, -23.0], abs=0.05)
        for audio, _ in heard:
            ratio = 10 * np.log10((audio[0] ** 2).sum() / (audio[1] ** 2).sum())
            assert ratio == pytest.approx(20 * np.log10(4), abs=0.01)
        world.answer("eva", trial, good)
    rows = answers.read(world.output)[1:]
    assert {row["lufs"] for row in rows} == {-23.0}
    by_system = {name: [] for name in ("alpha", "beta")}
    for row in rows:
        for name, gain in zip(row["order"], row["gains_db"], strict=True):
            by_system[name].append(gain)
    # beta was written 6 dB below alpha
    assert np.mean(by_system["beta"]) - np.mean(by_system["alpha"]) == pytest.approx(6.02, abs=1.0)


def test_pictures_come_with_the_sound_and_all_five_questions(world_of):
    world = world_of(trials=6, videos=True)
    assert world.said == ["1 of 3 clips have no picture, and get 2 of the 5 questions: clip2"]
    world.pass_check("eva")
    seen = set()
    for _ in range(6):
        trial = world.ask("next", listener="eva")
        assert [q["name"] for q in trial["questions"]] == [q.name for q in asked(trial["picture"])]
        for name in trial["sounds"]:
            _, headers, _ = world.raw(f"media/{name}")
            assert headers["Content-Type"] == ("video/mp4" if trial["picture"] else "audio/flac")
        if trial["picture"]:
            audio, rate = world.sound(trial["sounds"][0])
            # as long as the picture; loud for as long as the shortest sound, lossless
            assert audio.shape == (2, round(0.8 * rate))
            assert np.abs(audio[:, round(0.6 * rate) :]).max() == 0
        seen.add(trial["picture"])
        world.answer("eva", trial, good)
    assert seen == {True, False}


# -------------------- the server


def test_only_what_is_listened_to_is_served(world_of):
    world = world_of(trials=2)
    outside = world.output.parent / "alpha" / "clip0.flac"
    assert outside.is_file()
    for place in (
        "media/clip0.flac",
        "media/../alpha/clip0.flac",
        "media/..%2f..%2falpha%2fclip0.flac",
        f"media/{outside}",
        "../answers.jsonl",
        "..%2fanswers.jsonl",
        "session.py",
        "listen.html",
        "media/",
        "api/start",
    ):
        assert world.raw(place)[0] == 404, place
    for path in (
        "/",
        "/etc/passwd",
        f"/{world.server.token}",
        "http://elsewhere/",
    ):
        assert b" 404 " in exchange(world, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n"), path
    for token in ("", "x", world.server.token[:-1], world.server.token + "x", "%00"):
        assert world.raw("", token=token)[0] in (403, 404)
        assert world.raw("api/start", {"listener": "eva"}, token=token)[0] in (403, 404)
    assert len(world.server.token) >= 24 and world_of("v").server.token != world.server.token


def exchange(world, text):
    """The first bytes of the answer to a request that is written by hand."""
    with socket.create_connection(("127.0.0.1", world.server.server_port), timeout=30) as connection:
        connection.sendall(text.encode())
        return connection.recv(4096)


def test_only_from_this_machine(world_of):
    world = world_of(trials=2)
    assert world.server.server_address[0] == "127.0.0.1"
    status, _, _ = world.raw("", headers={"Host": f"evil.example:{world.server.server_port}"})
    assert status == 403  # a name of another site that was turned to this address
    _, headers, _ = world.raw("")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"


def test_requests_that_are_none(world_of):
    world = world_of(trials=2)
    kind = {"Content-Type": "text/plain"}
    assert world.raw("api/start", {"listener": "eva"}, headers=kind)[0] == 415  # a form of another site
    assert world.raw("api/start", b"{")[0] == 400
    assert world.raw("api/start", b"[1]")[0] == 400
    assert world.raw("api/start", b" " * 70_000)[0] == 413
    assert world.raw("api/nothing", {})[0] == 404
    assert world.raw("", method="DELETE")[0] == 501
    token = world.server.token
    head = f"POST /{token}/api/start HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Type: application/json\r\n"
    assert b" 413 " in exchange(world, head + "\r\n")
    assert b" 413 " in exchange(world, head + "Content-Length: -5\r\n\r\n")


@pytest.mark.parametrize("listener", ["", "a b", "../x", "x" * 41, ".x", 5, None, "e\u00e9", "a\n"])
def test_names_of_listeners(rating_world, listener):
    world, _ = rating_world
    for request in ("start", "check", "next"):
        assert world.ask(request, expected=400, listener=listener)["error"].startswith("a name has 1 to 40")


def test_one_listener_alone(world_of):
    world = world_of(trials=2, listener="eva")
    world.ask("start", expected=403, listener="otto")
    assert world.ask("start", listener="eva")["total"] == 2


def test_parts_of_a_sound(world_of):
    """Players jump by ranges (RFC 9110, 14)."""
    world = world_of(trials=2)
    world.pass_check("eva")
    name = world.ask("next", listener="eva")["sounds"][0]
    status, headers, whole = world.raw(f"media/{name}")
    assert status == 200 and headers["Accept-Ranges"] == "bytes"
    end = len(whole) - 1
    for wanted, first, last in (
        ("bytes=0-9", 0, 9),
        ("bytes=100-", 100, end),
        ("bytes=5-999999999", 5, end),
    ):
        status, headers, part = world.raw(f"media/{name}", headers={"Range": wanted})
        assert status == 206 and part == whole[first : last + 1]
        assert headers["Content-Range"] == f"bytes {first}-{last}/{len(whole)}"
    assert world.raw(f"media/{name}", headers={"Range": f"bytes={len(whole)}-"})[0] == 416
    status, headers, body = world.raw(f"media/{name}", method="HEAD")
    assert (status, int(headers["Content-Length"]), body) == (200, len(whole), b"")


def test_a_sound_that_is_gone_and_a_file_that_cannot_be_written(world_of):
    world = world_of(trials=2)
    world.pass_check("eva")
    trial = world.ask("next", listener="eva")
    world.output.chmod(0o400)
    moved = world.output.rename(world.output.with_suffix(".away"))
    world.output.mkdir()
    given = {q["name"]: good(trial["kind"], q["name"]) for q in trial["questions"]}
    body = {"listener": "eva", "trial": 0, "given": given, "plays": [1] * len(trial["sounds"])}
    assert "cannot be" in world.ask("answer", expected=500, **body)["error"]
    world.output.rmdir()
    moved.rename(world.output).chmod(0o600)
    world.ask("answer", **body)  # nothing was lost meanwhile
    for path in (world.output.parent / "alpha").iterdir():
        path.unlink()
    assert "cannot be played" in world.ask("next", expected=500, listener="eva")["error"]


def test_files_that_are_bad_beyond_their_heads_stop_no_listener(world_of):
    """They were found at their first trial, which was then asked for again and again; one that is cut short
    cut the others of its clip."""

    def spoil(folder):
        bad = noise(0)
        bad[1, 5000] = np.nan
        write_in_place_of(folder / "alpha" / "clip0.flac", bad)
        cut = write_in_place_of(folder / "beta" / "clip1.flac", noise(1))
        cut.write_bytes(cut.read_bytes()[:20000])

    world = world_of(trials=6, spoil=spoil)
    assert world.test.clips == ["clip2"]
    (nan,) = [said for said in world.said if "NaN" in said]
    assert nan.startswith("alpha: 1 x ") and ": clip0 [clip0.wav: holds NaN or infinity (1 samples)" in nan
    (short,) = [said for said in world.said if "ends before" in said]
    assert short.startswith("beta: 1 x ") and ": clip1 [clip1.wav: " in short and "bytes short" in short
    world.pass_check("eva")
    for _ in range(6):
        trial = world.ask("next", listener="eva")
        assert world.sound(trial["sounds"][0])[0].shape[1] == round(0.6 * 48000)
        world.answer("eva", trial, good)
    assert world.ask("next", listener="eva")["finished"]
