"""The listening test's page: a whole test in a real browser (extra `review-test`), and the command itself."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from browsing import PATIENCE_S, launched, until
from listening_world import World, make_sounds, make_video

from visaudio.evaluation.listening import answers

SIDES = """async () => {
  const context = new OfflineAudioContext(2, 48000, 48000);
  const sides = [];
  for (const button of document.querySelectorAll("[role=group] > button")) {
    const played = new Promise((done) => { window.heard = done; });
    button.click();
    const file = await (await fetch(await played)).arrayBuffer();
    const sound = await context.decodeAudioData(file);
    const power = (c) => sound.getChannelData(c).reduce((sum, x) => sum + x * x, 0);
    sides.push(power(0) > power(1) ? "left" : "right");
  }
  return sides;
}"""
# what the page plays is told to the test: its sounds have no other name
SPY = """const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () { window.heard?.(this.src); return play.call(this); };"""


@pytest.fixture
def page():
    for browser in launched():
        page = browser.new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.add_init_script(SPY)
        yield page


@pytest.mark.slow
def test_a_whole_test_in_a_browser(page, tmp_path):
    world = World(tmp_path, videos=True, trials=2, seed=1)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(world.server.url) else errors.append(r.url))
    try:
        page.goto(world.server.url)
        page.locator("#name").fill("no good name")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('message').textContent.startsWith('a name has')")
        page.locator("#name").fill("eva")
        page.get_by_role("button", name="Begin").click()
        page.wait_for_selector("[role=group]")
        assert "null" not in page.locator("main").inner_text()
        said = page.evaluate(SIDES)
        for wrong in (True, False):  # headphones turned round, then right
            if not wrong:
                page.get_by_text("Not every tone was on the side you said").wait_for()
                said = page.evaluate(SIDES)
            flip = {"left": "right", "right": "left"} if wrong else {"left": "left", "right": "right"}
            for k, side in enumerate(said):
                page.locator(f"input[name=tone-{k}][value={flip[side]}]").check()
            page.get_by_role("button", name="Continue").click()
        for number in (1, 2):
            until(page, f"document.getElementById('progress').textContent == '{number} of 2'")
            assert "null" not in page.locator("main").inner_text()
            send = page.get_by_role("button", name="Next")
            wanted = "second" if page.locator("[value=second]").count() else "4"
            for option in page.locator(f"fieldset input[value='{wanted}']").all():
                option.check()
            assert send.is_disabled()  # not before all was heard
            for button in page.locator(".player button").all():
                heard = page.locator(".player.playing")
                button.click()
                heard.wait_for(state="attached")
                heard.wait_for(state="detached")
            until(page, "!document.querySelector('[type=submit]').disabled")
            page.screenshot(path=tmp_path / f"trial{number}.png")
            send.click()
        page.get_by_text("Your answers are stored").wait_for()
        assert page.locator("#progress").inner_text() == "2 of 2"
    finally:
        world.close()
    assert errors == []
    rows = answers.read(world.output)
    assert [row["kind"] for row in rows[:2]] == ["check", "check"]
    assert [row["passed"] for row in rows[:2]] == [False, True]
    assert sorted(row["kind"] for row in rows[2:]) == ["pair", "rating"]
    for row in rows[2:]:
        given = row["ratings" if row["kind"] == "rating" else "choices"]
        assert set(given.values()) == ({4} if row["kind"] == "rating" else {"second"})
        assert len(given) in (2, 5) and min(row["plays"]) >= 1


@pytest.mark.slow
def test_the_command_from_start_to_summary(tmp_path):
    systems = make_sounds(tmp_path)
    make_video(tmp_path / "videos" / "clip0.mp4")
    output = tmp_path / "answers.jsonl"
    command = [
        sys.executable,
        "-m",
        "visaudio.evaluation.listen",
        "--systems",
        *systems,
        "--output",
        str(output),
    ]
    command += ["--videos", str(tmp_path / "videos"), "--port", "0", "--trials", "1", "--listener", "eva"]
    command += ["--seed", "5", "--ask", "ratings"]
    # a shell's background jobs, and what they start, ignore Ctrl-C unless told otherwise
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, **heard) as process:
        try:
            assert process.stdout.readline() == "3 clips, 2 systems, 1 trials for each listener\n"
            url = re.fullmatch(r"open (http://127\.0\.0\.1:\d+/[\w-]+/) .*\n", process.stdout.readline())[1]
            with urllib.request.urlopen(url, timeout=30) as response:
                assert b"Listening test" in response.read()
            request = urllib.request.Request(
                f"{url}api/start", b'{"listener": "eva"}', {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=30) as response:
                assert json.load(response) == {"listener": "eva", "done": 0, "total": 1, "passed": False}
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0 and str(output) in out
    assert "2 of 3 clips have no picture" in err
