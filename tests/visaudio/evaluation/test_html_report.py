"""The report page: well-formed, of itself alone, true to results.json, and safe from hostile names."""

import base64
import hashlib
import json
import math
import os
import re
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
from html_tree import read_page
from small_results import RATE, ears, small_results, values, with_clip, write_sound

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import html_report
from visaudio.evaluation.html_report import ReportConfig, worst_order, write_report
from visaudio.evaluation.page import choice
from visaudio.evaluation.results import Figure, Problem, Results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sounds")


@pytest.fixture(scope="module")
def results(folder):
    return small_results(folder)


@pytest.fixture(scope="module")
def page_path(results, tmp_path_factory):
    return write_report(results, tmp_path_factory.mktemp("eval"), ReportConfig(clips=4))


@pytest.fixture(scope="module")
def page(page_path):
    return read_page(page_path.read_text(encoding="utf-8"))


def addresses(page):
    """Every address that the page loads or leads to."""
    found = [
        e.attributes[k] for e in page.walk() for k in ("src", "href", "poster", "data") if k in e.attributes
    ]
    data = data_of(page)
    for clip in data["clips"]:
        found += [a for a in (clip["reference"], clip["video"], *clip["sounds"]) if a]
    return found


def data_of(page):
    return json.loads(page.one("script", id="data").text)


def listed_ids(page):
    return [row.one("th").text for row in page.one("table", id="listing").one("tbody").all("tr")]


def shown(text):
    """A number of the page as Python reads it; nan for the dash."""
    return math.nan if text == "\N{EM DASH}" else float(text.replace("\N{MINUS SIGN}", "-"))


# -------------------- the page by itself


def test_it_asks_nothing_of_other_machines(page, page_path):
    found = addresses(page)
    assert len(found) > 20
    foreign = [a for a in found if not re.match(r"(data:image/png;base64,|#|media/)", a)]
    assert foreign == []
    text = page_path.read_text(encoding="utf-8")
    assert set(re.findall(r"\w+://[\w./]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, never loaded
    style = page.one("style").text
    assert "url(" not in style and "@import" not in style


def test_only_its_own_script_may_run(page):
    """The policy names the checksums of what is in the page, as browsers compute them."""
    policy = page.one("meta", http_equiv=None, content=policy_of(page)).attributes["content"]
    script = [e for e in page.all("script") if e.attributes.get("type") is None]
    for element, rule in ((script[0], "script-src"), (page.one("style"), "style-src")):
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert len(script) == 1
    assert [
        e.name for e in page.walk() if any(k.startswith("on") or k == "style" for k in e.attributes)
    ] == []


def policy_of(page):
    (meta,) = [e for e in page.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy"]
    return meta.attributes["content"]


def test_every_player_has_a_file(page, page_path):
    media = {a for a in addresses(page) if a.startswith("media/")}
    assert len(media) == 6 + 6 + 5  # references, ours, mono, which lacks one
    assert [a for a in media if not (page_path.parent / unquote(a)).is_file()] == []
    players = [e.attributes["src"] for e in page.all("audio")]
    assert len(players) >= 4 * 2 and set(players) <= media


def test_sections_lead_where_they_say(page):
    assert [a.attributes["href"] for a in page.one("nav").all("a")] == [
        "#systems",
        "#tests",
        "#problems",
        "#pictures",
        "#clips",
    ]


# -------------------- numbers


def test_the_table_says_what_results_json_says(page, results):
    stored = Results.from_json(results.to_json())
    table = page.all("table", class_="figures")[0]
    rows = {row.one("th").text.split("\N{DOWNWARDS ARROW}")[0].split("\N{UPWARDS ARROW}")[0].strip(): row
            for row in table.all("tr") if row.all("td")}  # fmt: skip
    heads = {"ild_error_db": "ILD error dB", "side": "side accuracy %", "ratio_db": "left-right ratio dB",
             "fd": "Frechet distance"}  # fmt: skip
    assert set(rows) == set(heads.values())
    for name, spec in stored.specs.items():
        cells = rows[heads[name]].all("td")[:2]
        for system, cell in zip(("ours", "mono"), cells, strict=True):
            figure = stored.figures[system][name]
            (value,) = cell.all("span", class_="value")
            assert shown(value.text) == pytest.approx(figure.value * spec.factor, abs=0.51 * 10**-spec.digits)
            interval = cell.all("span", class_="interval")[0].text
            low, high = (shown(x) for x in interval.strip("[]").split(", "))
            assert low == pytest.approx(figure.low * spec.factor, abs=0.51 * 10**-spec.digits)
            assert high == pytest.approx(figure.high * spec.factor, abs=0.51 * 10**-spec.digits)
            counted = [s.text for s in cell.all("span", class_="interval") if s.text.startswith("n ")]
            assert counted == ([f"n {figure.clips}"] if figure.clips != 6 else [])


def test_the_best_is_marked_and_what_is_not_told_apart_from_it(page):
    table = page.all("table", class_="figures")[0]
    marks = {}
    for row in table.all("tr"):
        if cells := row.all("td"):
            marks[row.one("th").text.split()[0]] = [cell.attributes.get("class") for cell in cells[:2]]
    # the errors are told apart, sides and distances not; a ratio is neither good nor bad
    assert marks == {
        "ILD": ["best", None],
        "side": ["best", "near"],
        "left-right": [None, None],
        "Frechet": ["best", "near"],
    }


def test_paired_tests_say_who_is_better_only_where_told_apart(page):
    (head,) = [s.text for s in page.all("summary") if "against" in s.text]
    assert head == "ours against mono: ours better in 1 figures, mono in 0, not told apart in 2"
    table = page.all("table", class_="figures")
    tests = next(t for t in table if t.all("th") and "p Holm" in [h.text for h in t.all("th")])
    heads = [body.all("tr")[0].one("th").text for body in tests.all("tbody")]
    assert heads == ["space", "quality"]  # figures stand under their measures
    rows = [row for body in tests.all("tbody") for row in body.all("tr")[1:]]
    first = [cell.text.replace("\N{MINUS SIGN}", "-") for cell in rows[0].all("td")]
    assert first == ["-0.25", "[-0.30, -0.20]", "0.002", "0.010", "0.030", "4", "ours"]
    assert [row.all("td")[-1].text for row in rows] == ["ours", "not told apart", "", "not told apart"]
    assert rows[3].all("td")[3].text == "\N{EM DASH}" and rows[3].all("td")[4].text == "0.400"
    (note,) = [p.text for p in page.all("p", class_="note") if "Wilcoxon" in p.text]
    assert note.endswith("Without a signed-rank test here: Frechet distance.") and "below 0.05" in note


def test_problems_are_counted_and_named(page):
    rows = [
        [c.text for c in r.all("td")] for r in page.one("table", class_="problems").one("tbody").all("tr")
    ]
    assert rows == [
        ["serious", "mono", "no generated sound: left out", "1", "clip-5"],
        ["serious", "ours", "a file that cannot be read: clip refused", "1", "x.wav (x.wav: not a sound)"],
        ["serious", "all", "imagebind not computed: imagebind is not installed", "", ""],
    ]


def test_systems_over_different_clips_are_marked(page, tmp_path):
    head = page.one("header").text
    assert "6 clips, 2 systems (scored: ours 6 clips, mono 5 of 6 clips)" in head
    (told,) = page.all("strong")
    assert told.text.startswith("Systems were scored over different clips (ours 6, mono 5; common to all: 5)")
    assert "not directly comparable" in told.text
    alone = small_results(tmp_path, systems=("ours",), clips=2)
    other = read_page(write_report(alone, tmp_path / "page").read_text(encoding="utf-8"))
    assert not other.all("strong") and "scored" not in other.one("header").text


def test_kinds_of_clips_have_tables_of_their_own(page):
    assert "close by: 2 clips" in [s.text for s in page.all("summary")]


# -------------------- worst first


def test_worst_first_by_the_figure_that_was_asked_for(page, results, tmp_path):
    errors = [values(k, 0)["ild_error_db"] for k in range(6)]  # 0, 2, nan, 1, 3, 0
    assert listed_ids(page) == [f"clip-{k}" for k in (4, 1, 3, 0, 5, 2)]
    assert sorted(errors[k] for k in (4, 1, 3, 0, 5))[::-1] == [errors[k] for k in (4, 1, 3, 0, 5)]
    other = write_report(results, tmp_path, ReportConfig(clips=0, figure="ratio_db", system="mono"))
    page = read_page(other.read_text())
    assert listed_ids(page) == [f"clip-{k}" for k in (4, 3, 2, 1, 0, 5)]  # large to small; mono has no clip 5
    assert page.all("article") == []


def test_lower_values_are_worse_where_higher_is_better(results):
    order = worst_order(results, ReportConfig(figure="side"))
    assert list(order.places) == [4, 1, 3, 0, 5, 2]


def test_cards_are_the_worst_and_a_spread(page):
    ids = [card.attributes["id"] for card in page.all("article")]
    assert ids == ["clip-4", "clip-1", "clip-0", "clip-2"]
    heads = [card.one("small").text for card in page.all("article")]
    assert heads[0] == "1 of 6 from the worst by ILD error of ours" and heads[-1].startswith("6 of 6")
    links = {
        a.text: a.attributes["href"]
        for a in page.one("table", id="listing").all("a")
        if a.attributes["href"][0] == "#"
    }
    assert links == {i: f"#{i}" for i in ids}


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [9]), (4, [9, 8, 4, 0]), (99, list(range(9, -1, -1)))]
)
def test_choice_of_pictures(count, expected):
    assert choice.with_pictures(np.arange(9, -1, -1), count) == expected


def test_data_of_the_script_is_what_clips_have(page, results):
    data = data_of(page)
    assert [f["title"] for f in data["figures"]] == ["ILD error", "side accuracy", "left-right ratio"]
    for s in range(2):
        for k in range(6):
            error, side = data["values"][0][s][k], data["values"][1][s][k]
            if k == 2 or (s, k) == (1, 5):
                assert error is None and (side is None)
            else:
                assert error == pytest.approx(values(k, s)["ild_error_db"])
                assert side == pytest.approx(100 * values(k, s)["side"])
    assert data["groups"] == [{"clips": [0, 1]}] and data["cards"] == [4, 1, 0, 2]


@pytest.mark.parametrize(
    "config", [ReportConfig(figure="loudness"), ReportConfig(figure="fd"), ReportConfig(system="theirs")]
)
def test_an_unknown_figure_or_system_is_refused(results, tmp_path, config):
    with pytest.raises(UserError, match="expected of (ild_error_db, side, ratio_db|ours, mono)$"):
        write_report(results, tmp_path, config)


def test_results_without_figures_of_single_clips(results, tmp_path):
    bare = replace(
        results,
        clips=tuple(
            replace(c, sounds={n: replace(s, values={}) for n, s in c.sounds.items()}) for c in results.clips
        ),
    )
    page = read_page(write_report(bare, tmp_path).read_text())
    assert page.all("article") == [] and page.all("table", id="listing") == []
    assert "No figure of single clips" in page.text


# -------------------- hostile names

HOSTILE = (
    '<img src=x onerror="document.title=1">',
    '"><script>document.title=1</script>',
    "</script><script>document.title=1</script>",
    "javascript:document.title=1//../../etc",
    "a' onclick='document.title=1",
    "\u202eturned\x00\x1b[31m &amp; \udcff",
)


def test_hostile_names_stay_text(tmp_path):
    results = small_results(
        tmp_path / "in", systems=(HOSTILE[0], HOSTILE[2]), names=HOSTILE, caption=HOSTILE[1]
    )
    results = replace(results, made={"command": HOSTILE[2], "settings": {HOSTILE[0]: HOSTILE[1]}})
    results = replace(results, groups={"g": HOSTILE}, group_titles={"g": HOSTILE[2]}, group_figures={})
    path = write_report(results, tmp_path / "out", ReportConfig(clips=6))
    page = read_page(path.read_text(encoding="utf-8"))
    assert len(page.all("script")) == 2 and page.all("img") == []
    assert [e for e in page.walk() if any(k.startswith("on") for k in e.attributes)] == []
    shown_ids = listed_ids(page)
    assert set(HOSTILE[:5]) < set(shown_ids)  # as text, letter by letter
    (turned,) = set(shown_ids) - set(HOSTILE[:5])
    assert turned == "\ufffdturned\ufffd\ufffd[31m &amp; ?"
    assert HOSTILE[1] in {c.text for c in page.all("td", class_="caption")}
    assert data_of(page)["systems"] == [HOSTILE[0], HOSTILE[2]]
    for address in addresses(page):
        assert re.match(
            r"(data:image/png;base64,|#clip-\d|#[a-z]+|media/(sounds/)?[\w.%-]+/[\w.%-]+)", address
        )
        if address.startswith("media/"):
            target = (path.parent / unquote(address)).resolve()
            assert target.is_file() and path.parent.resolve() in target.parents


def test_sounds_of_names_that_look_alike_do_not_replace_each_other(tmp_path):
    results = small_results(tmp_path / "in", systems=("a b", "a-b"), clips=2, names=["x?", "x-"])
    path = write_report(results, tmp_path / "out")
    data = data_of(read_page(path.read_text()))
    found = [a for clip in data["clips"] for a in (clip["reference"], *clip["sounds"]) if a]
    assert len(found) == len(set(found)) == 2 + 3
    clip = results.clips[0]
    for system, address in zip(("a b", "a-b"), data["clips"][0]["sounds"], strict=True):
        assert (path.parent / unquote(address)).read_bytes() == (
            tmp_path / clip.sounds[system].path
        ).read_bytes()


# -------------------- media


def test_sounds_are_linked_or_kept_without_loss(tmp_path):
    """FLAC and WAV of 16 bits are the same file; floating point becomes FLAC, its ILD kept."""
    results = small_results(tmp_path / "in", clips=3)
    loud = ears(1, 20.0, 5.0)  # peaks beyond 1
    wav = write_sound(tmp_path / "in" / "a.wav", ears(0, 0.7, 0.3))
    floating = write_sound(tmp_path / "in" / "b.wav", loud, "FLOAT")
    sound = results.clips[0].sounds["ours"]
    results = with_clip(results, 0, sounds={"ours": replace(sound, path=str(wav))})
    results = with_clip(results, 1, sounds={"ours": replace(sound, path=str(floating))})
    path = write_report(results, tmp_path / "out", ReportConfig(clips=0))
    page = read_page(path.read_text())
    first, second, third = ((path.parent / unquote(c["sounds"][0])) for c in data_of(page)["clips"])
    assert os.path.samefile(first, wav) and first.suffix == ".wav"
    assert os.path.samefile(third, results.clips[2].sounds["ours"].path)
    decoded, rate = soundfile.read(second)
    assert second.suffix == ".flac" and rate == RATE
    np.testing.assert_allclose(decoded.T, loud / np.abs(loud).max(), atol=2**-23)
    note = [r.text for r in page.one("table", class_="problems").all("tr") if "page only" in r.text]
    assert len(note) == 1 and "turned down for the player" in note[0] and "clip-1" in note[0]


def test_where_nothing_can_be_linked_it_is_copied_and_not_twice(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(18, "Invalid cross-device link")

    results = small_results(tmp_path / "in", clips=3)
    wav = write_sound(tmp_path / "in" / "a.wav", ears(0, 0.7, 0.3))
    video = tmp_path / "in" / "v.mp4"
    video.write_bytes(b"video")
    sound = results.clips[0].sounds["ours"]
    results = with_clip(results, 0, sounds={"ours": replace(sound, path=str(wav))}, video=str(video))
    results = with_clip(results, 1, video=str(video))
    monkeypatch.setattr(os, "link", refused)
    path = write_report(results, tmp_path / "out", ReportConfig(clips=1))
    data = data_of(read_page(path.read_text()))
    copied = path.parent / data["clips"][0]["sounds"][0]
    assert copied.suffix == ".flac"  # smaller than the WAV, and the same samples
    np.testing.assert_array_equal(
        soundfile.read(copied, dtype="int16")[0], soundfile.read(wav, dtype="int16")[0]
    )
    # of the videos, only the one of the clip with a picture
    assert [bool(c["video"]) for c in data["clips"]] == [k in data["cards"] for k in range(2)] + [False]
    before = copied.stat().st_mtime_ns, copied.stat().st_ino
    write_report(results, tmp_path / "out", ReportConfig(clips=1))
    assert (copied.stat().st_mtime_ns, copied.stat().st_ino) == before
    write_sound(wav, ears(5))
    os.utime(wav, ns=(1, 1))
    write_report(results, tmp_path / "out", ReportConfig(clips=1))
    np.testing.assert_array_equal(
        soundfile.read(copied, dtype="int16")[0], soundfile.read(wav, dtype="int16")[0]
    )


def test_files_of_an_earlier_page_go_and_nothing_else_does(tmp_path):
    results = small_results(tmp_path / "in", clips=3)
    path = write_report(results, tmp_path / "out")
    mine = path.parent / "media" / "reference" / "mine.txt"
    mine.write_text("kept")
    outside = path.parent / "outside.flac"
    outside.write_text("kept")
    index = path.parent / "media" / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"../outside.flac": []}))
    gone = path.parent / "media" / "reference" / "clip-2.flac"
    assert gone.is_file()
    write_report(replace(results, clips=results.clips[:2]), path.parent)
    assert not gone.exists() and mine.exists() and outside.exists()


def test_a_sound_that_is_gone_is_told(tmp_path):
    results = small_results(tmp_path / "in", clips=3)
    os.unlink(results.clips[1].sounds["ours"].path)
    page = read_page(write_report(results, tmp_path / "out").read_text())
    note = [r.text for r in page.one("table", class_="problems").all("tr") if "page only" in r.text]
    assert len(note) == 1 and "sound not found any more" in note[0] and note[0].endswith("clip-1")
    assert data_of(page)["clips"][1]["sounds"] == [None, "media/sounds/mono/clip-1.flac"]
    assert len(page.all("article")) == 3  # the other sounds of the clip are drawn


def test_many_pictures_lie_beside_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(html_report, "INLINE", 1)
    (tmp_path / "v.mp4").write_bytes(b"video")
    results = with_clip(small_results(tmp_path / "in", clips=2), 0, video=str(tmp_path / "v.mp4"))
    path = write_report(results, tmp_path / "out", ReportConfig(clips=2))
    page = read_page(path.read_text())
    pictures = [e.attributes["href"] for e in page.all("image") if e.attributes["href"].startswith("media/")]
    assert len(pictures) == 2 * (2 + 2) + 2 * 1
    assert all((path.parent / unquote(p)).read_bytes().startswith(b"\x89PNG") for p in pictures)
    assert {v.attributes["preload"] for v in page.all("video")} == {"none"}
    monkeypatch.setattr(html_report, "INLINE", 2)
    page = read_page(write_report(results, tmp_path / "out", ReportConfig(clips=2)).read_text())
    assert {v.attributes["preload"] for v in page.all("video")} == {"metadata"}
    assert not (path.parent / unquote(pictures[0])).exists()


def test_a_folder_that_cannot_be_written(results, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the report cannot be written"):
        write_report(results, tmp_path / "file")


def test_progress_is_told(results, tmp_path):
    told = []
    write_report(results, tmp_path, ReportConfig(clips=2), progress=lambda *n: told.append(n))
    assert told == [(1, 2), (2, 2)]


def test_a_reason_that_all_share_is_told_once(results, tmp_path):
    names = tuple(f"n{k}" for k in range(9))
    shared = Problem("rate", "rates differ", names, "ours", "", False, ("8 and 16 kHz",) * 9)
    own = Problem("channels", "refused", names[:2], "ours", "", True, ("3 channels", "4 channels"))
    path = write_report(replace(results, problems=(shared, own)), tmp_path, ReportConfig(clips=0))
    rows = read_page(path.read_text()).one("table", class_="problems").one("tbody").all("tr")
    assert [cell.text for cell in rows[0].all("td")][2:] == [
        "refused",
        "2",
        "n0 (3 channels), n1 (4 channels)",
    ]
    what, count, listed = (cell for cell in rows[1].all("td")[2:])
    assert what.text == "rates differ (8 and 16 kHz)" and count.text == "9"
    assert listed.one("summary").text == "n0, n1, n2, n3, n4, n5 and 3 more"
    assert listed.one("p").text == ", ".join(names)


def test_pages_of_results_read_back_are_the_same(results, tmp_path):
    """From results.json, whose folder is elsewhere, the same page comes."""
    (tmp_path / "a").mkdir()
    stored = tmp_path / "a" / "results.json"
    stored.write_text(results.to_json())
    again = Results.from_json(stored.read_text(), stored.parent)
    pages = [write_report(r, tmp_path / n).read_text() for r, n in ((results, "x"), (again, "y"))]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("flags", "config"),
    [
        ("", ReportConfig()),
        ("--report-clips 0 --report-figure side", ReportConfig(clips=0, figure="side")),
        ("--report-clips 40 --report-system ours", ReportConfig(clips=40, system="ours")),
    ],
)
def test_flags_of_the_commands_say_what_the_page_shows(flags, config):
    from visaudio.cli import compare, evaluation
    from visaudio.cli.report_options import report_config

    for command, needed in ((evaluation, "--generated a --output b"), (compare, "results.json --output b")):
        options = command._parser().parse_args([*needed.split(), *flags.split()])
        assert report_config(options) == config
        with pytest.raises(SystemExit):
            command._parser().parse_args([*needed.split(), "--report-clips", "-1"])


def test_a_single_clip_without_reference_intervals_or_truth(tmp_path):
    """What has nothing to say is a dash or is left out; the rest of the page stands."""
    results = small_results(tmp_path / "in", systems=("ours",), clips=1)
    results = with_clip(results, 0, reference=None, truth=None, caption="")
    figure = Figure(1.0, math.nan, math.nan, 1)
    results = replace(results, figures={"ours": dict.fromkeys(results.specs, figure)}, groups={})
    results = replace(results, group_figures={}, problems=(), unavailable={})
    page = read_page(write_report(results, tmp_path / "out").read_text())
    (card,) = page.all("article")
    assert [a.attributes["aria-label"] for a in card.all("audio")] == ["ours"]
    assert len([e for e in card.all("rect") if e.attributes["class"] == "panel"]) == 2 + 2
    table = page.all("table", class_="figures")[0]
    assert table.all("span", class_="interval") == [] and table.all("td", class_="best") == []
    assert "None: every clip was read" in page.text and page.all("h2", id="tests") == []


def test_of_a_long_sound_the_beginning_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(html_report, "LONGEST_S", 0.25)
    page = read_page(write_report(small_results(tmp_path / "in", clips=2), tmp_path / "out").read_text())
    cards = page.all("article")
    assert all("The first 0.25 of 0.5 s." in card.text for card in cards)
    seconds = {e.attributes["data-seconds"] for card in cards for e in card.all("rect")}
    assert seconds == {"0.25"}
