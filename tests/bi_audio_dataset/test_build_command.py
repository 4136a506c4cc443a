"""What `build` makes of its flags, of --config and of --set."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_main import one_line
from test_main_options import first_row, with_two_ears

from bi_audio_dataset.__main__ import _parser, main
from bi_audio_dataset.build_command import config_of
from bi_audio_dataset.build_config import BuildConfig
from bi_audio_dataset.clip import choose_hfov
from bi_audio_dataset.filters import SelectionConfig
from bi_audio_dataset.render import loudness_lufs
from bi_audio_dataset.shards import read_rows

pytestmark = pytest.mark.usefixtures("in_this_process")
CONFIGS = Path(__file__).parents[2] / "configs"


def config(*flags: str) -> BuildConfig:
    return config_of(_parser().parse_args(["build", "films", "--output", "set", *flags]))


def built(folder: Path) -> dict:
    return json.loads((folder / "build.json").read_text())["config"]


def test_defaults_are_those_of_recordings():
    assert config() == BuildConfig.of_recordings()
    assert config().selection == SelectionConfig()
    assert BuildConfig.of_recordings().hfov_fixed_probability == 1.0
    assert BuildConfig.of_recordings().aim_from_hz == 100.0
    changed = {"hfov_fixed_probability": 0.5, "aim_from_hz": 0.0, "selection": SelectionConfig.measured()}
    assert replace(config(), **changed) == BuildConfig()


def test_file_then_flags(tmp_path):
    """Flags and --set win over the file; what only the file says stays."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "seed: 5\nclip_s: 4\nwidth: 320\nheight: 180\ncrf: 18\n"
        "trajectory: {yaw_rate_deg: 20}\n"
        "selection:\n"
        "  silent: {level_dbfs: -50, action: mark}\n"
        "  speech: {model: some/model, action: mark}\n"
        "  static: {action: off}\n"
    )
    found = config("--config", str(path))
    assert (found.seed, found.clip_s, found.width, found.height, found.crf) == (5, 4.0, 320, 180, 18)
    assert (found.selection.static.action, found.selection.speech.model) == ("off", "some/model")
    assert found.trajectory == replace(BuildConfig().trajectory, yaw_rate_deg=20.0)

    flags = ["--seed", "0", "--clip-s", "2", "--size", "64x48", "--reject", "silent", "--set", "crf=30"]
    over = config("--config", str(path), *flags, "--set", "selection.speech.max_probability=0.7")
    assert (over.seed, over.clip_s, over.width, over.height, over.crf) == (0, 2.0, 64, 48, 30)
    silent, speech = over.selection.silent, over.selection.speech
    assert (silent.level_dbfs, silent.action) == (-50.0, "reject")
    assert (speech.model, speech.max_probability, speech.action) == ("some/model", 0.7, "mark")
    assert over.trajectory == found.trajectory


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--set", "clip_s=4", "--clip-s", "4"], "'clip_s' is given both by --set and by --clip-s"),
        (["--set", "width=64", "--size", "64x48"], "'width' is given both by --set and by --size"),
        (
            ["--set", "selection.static.action=off", "--mark", "static"],
            "'selection.static.action' is given both by --set and by --mark",
        ),
        (["--set", "hfov_fixed_deg=80", "--hfov-deg", "70"], "both by --set and by --hfov-deg"),
        (["--set", "selection.silnt.level_dbfs=-40"], "no setting 'selection.silnt': did you mean silent"),
        (["--mark", "static", "--reject", "static"], "filter 'static' is given both"),
        (["--source", "perspective", "--hfov-deg", "50-110"], "films have one lens"),
    ],
)
def test_contradictions_are_one_line(flags, words, films, tmp_path, capsys):
    assert main(["build", str(films), "--output", str(tmp_path / "set"), *flags]) == 2
    assert words in one_line(capsys)
    assert not (tmp_path / "set").exists()


def test_config_files_that_do_not_fit_are_one_line(films, tmp_path, capsys):
    command = ["build", str(films), "--output", str(tmp_path / "set"), "--config", str(tmp_path / "c.yaml")]
    assert main(command) == 2
    assert "c.yaml': No such file" in one_line(capsys)
    (tmp_path / "c.yaml").write_text("selection: {weak_que: {action: off}}")
    assert main(command) == 2
    assert "c.yaml': there is no setting 'selection.weak_que': did you mean weak_cue" in one_line(capsys)
    assert not (tmp_path / "set").exists()


def test_a_file_fills_a_build_and_its_dry_run(films, tmp_path, capsys):
    """What a setting says can be seen in the clips; another one into the same folder is refused, by build and
    by --dry-run alike."""
    (tmp_path / "c.yaml").write_text(
        "clip_s: 1\nwidth: 96\nheight: 64\nfps: 20\nrows_per_shard: 7\nselection: {weak_cue: {action: off}}\n"
    )
    command = ["build", str(films), "--config", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "set")]
    assert main([*command, "--dry-run"]) == 0
    assert "about 1 clips" in capsys.readouterr().out
    assert main(command) == 0
    row = first_row(tmp_path / "set")
    assert (row["width"], row["height"], row["fps"]) == (96, 64, 20.0)
    assert len(row["camera"]["yaw_deg"]) == 20
    assert built(tmp_path / "set")["rows_per_shard"] == 7
    assert main(["validate", str(tmp_path / "set")]) == 0
    capsys.readouterr()
    for more in ([], ["--dry-run"]):
        assert main([*command, *more, "--set", "crf=30"]) == 2
        assert "holds another build (config.crf is 20 there, 30 here)" in one_line(capsys)


def test_limit_of_a_filter_decides(films, tmp_path, capsys):
    """The recording's ticks fill 40 % of the time: silent if a clip may be so for 30 % of it."""
    command = ["build", str(films), "--clip-s", "1", "--mark", "weak_cue", "--output"]
    assert main([*command, str(tmp_path / "set")]) == 0
    sets = ["--set", "selection.silent.max_fraction=0.3", "--set", "selection.silent.frame_s=0.02"]
    assert main([*command, str(tmp_path / "none"), *sets]) == 2
    assert "no clip" in capsys.readouterr().err


def test_loudness_is_bs1770_where_asked(films, tmp_path):
    """The finished sound measures the loudness asked for, which RMS level at that figure does not give."""
    found = {}
    for name, measure in (("one", "lufs"), ("other", "rms")):
        command = ["build", str(films), "--clip-s", "1", "--mark", "weak_cue"]
        command += ["--set", f"level_measure={measure}", "--set", "rms_dbfs=-30"]
        assert main([*command, "--output", str(tmp_path / name)]) == 0
        row = first_row(tmp_path / name)
        path = tmp_path / f"{name}.flac"
        path.write_bytes(row["audio"]["bytes"])
        found[name] = loudness_lufs(soundfile.read(path)[0].T, 44100)
    assert found["one"] == pytest.approx(-30.0, abs=0.05)
    assert abs(found["other"] + 30.0) > 1.0
    assert built(tmp_path / "one")["level_measure"] == "lufs"


def test_the_papers_settings():
    """configs/biaudio.yaml says what the paper states, and changes nothing of the defaults but the size."""
    found = config("--config", str(CONFIGS / "biaudio.yaml"))
    assert found == replace(BuildConfig.of_recordings(), width=640, height=360)
    assert (found.clip_s, found.hfov_fixed_deg, found.hfov_fixed_probability) == (8.0, 90.0, 1.0)
    chosen = found.selection
    assert (chosen.silent.level_dbfs, chosen.silent.max_fraction) == (-35.0, 0.9)
    assert (chosen.static.mse, chosen.static.max_fraction, chosen.static.rate_hz) == (5.0, 0.85, 2.0)
    assert chosen.weak_cue.min_lr_difference == 0.01


# -------------------- the lens


@pytest.mark.parametrize(
    ("text", "fixed_deg", "probability", "range_deg"),
    [
        ("90", 90.0, 1.0, (50.0, 110.0)),
        ("72.5", 72.5, 1.0, (50.0, 110.0)),
        ("60-100", 90.0, 0.0, (60.0, 100.0)),
    ],
)
def test_lens_of_views(text, fixed_deg, probability, range_deg):
    found = config("--hfov-deg", text)
    assert (found.hfov_fixed_deg, found.hfov_fixed_probability) == (fixed_deg, probability)
    assert found.hfov_range_deg == range_deg
    for seed in range(20):
        drawn = choose_hfov(np.random.default_rng(seed), found)
        assert drawn == fixed_deg if probability else 60.0 <= drawn <= 100.0


@pytest.mark.parametrize("text", ["wide", "50-", "110-50", "5", "-90", "50-200", "nan"])
def test_lenses_that_cannot_be(text, films, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["build", str(films), "--output", str(tmp_path / "set"), f"--hfov-deg={text}"])
    assert "--hfov-deg" in one_line(capsys)


def test_views_of_recordings_are_90_degrees_wide_unless_asked(films, tmp_path):
    """Four views of the recording: without the flag each is 90 degrees wide, with a range they differ."""
    command = ["build", str(films), "--clip-s", "1", "--views", "4", "--size", "64x36", "--mark", "weak_cue"]
    lenses = {}
    for name, more in (("plain", []), ("one", ["--hfov-deg", "75"]), ("range", ["--hfov-deg", "60-100"])):
        assert main([*command, *more, "--output", str(tmp_path / name)]) == 0
        (shard,) = (tmp_path / name / "data").glob("*.parquet")
        lenses[name] = [row["hfov_deg"] for row in read_rows(shard)]
    assert lenses["plain"] == [90.0] * 4 and lenses["one"] == [75.0] * 4
    assert len(set(lenses["range"])) == 4 and all(60 <= lens <= 100 for lens in lenses["range"])


def test_lens_of_films_is_the_sources_alone(tmp_path):
    """A film's lens is stated, not chosen; where nobody states it, its row has the config's usual one."""
    with_two_ears(tmp_path)
    command = ["build", str(tmp_path), "--source", "perspective", "--clip-s", "1"]
    assert main([*command, "--hfov-deg", "70", "--output", str(tmp_path / "stated")]) == 0
    assert main([*command, "--set", "hfov_fixed_deg=80", "--output", str(tmp_path / "usual")]) == 0
    assert [first_row(tmp_path / name)["hfov_deg"] for name in ("stated", "usual")] == [70.0, 80.0]
    assert built(tmp_path / "stated")["hfov_fixed_deg"] == 90.0


def test_synth_keeps_its_mixture(tmp_path, monkeypatch):
    """`synth` asks for the class's defaults, whose build.json must stay what it was: half the lenses 90."""
    from bi_audio_dataset import __main__ as cli

    asked = []
    monkeypatch.setattr(cli, "_run", lambda source, options, config, *_, **__: asked.append(config) or 0)
    assert main(["synth", "--clips", "2", "--seed", "3", "--output", str(tmp_path / "set")]) == 0
    assert asked == [BuildConfig(seed=3)]
    assert (asked[0].hfov_fixed_probability, asked[0].hfov_range_deg) == (0.5, (50.0, 110.0))


def test_a_folder_begun_with_the_mixture_is_another_build(films, tmp_path, capsys):
    command = ["build", str(films), "--clip-s", "1", "--mark", "weak_cue", "--output", str(tmp_path / "set")]
    assert main([*command, "--set", "hfov_fixed_probability=0.5", "--review"]) == 0
    capsys.readouterr()
    assert main(command) == 2
    assert "holds another build (config.hfov_fixed_probability is 0.5 there, 1.0 here)" in one_line(capsys)
