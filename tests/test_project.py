"""The repository as a newcomer meets it: README's map and commands, licence, packaging, example clips."""

import argparse
import ast
import importlib.metadata
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

import visaudio
from bi_audio_dataset import __main__ as builder_cli
from bi_audio_dataset import media
from visaudio.cli import baselines as baselines_cli
from visaudio.cli import benchmark_scoring
from visaudio.cli import compare as compare_cli
from visaudio.cli import evaluation as evaluation_cli
from visaudio.cli import features as features_cli
from visaudio.cli import hub as hub_cli
from visaudio.cli import listen as listen_cli
from visaudio.cli import sample as sample_cli
from visaudio.cli import train as train_cli
from visaudio.training.recipe import load_train_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = ["README.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]
DOCUMENTS += ["examples/README.md"]
# commands of other programs: their arguments are not ours to check
FOREIGN = ("pip", "pytest", "ruff", "pre-commit", "git")


def tracked_files() -> list[Path]:
    """What a commit holds; outside a git checkout, what lies there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        hidden = {".git", ".venv", "venv", "build", "dist", "__pycache__", ".pytest_cache", ".ruff_cache"}
        paths = [p for p in ROOT.rglob("*") if not hidden & set(p.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


def commands_of(document: str) -> list[str]:
    """Command lines of a document: of bash blocks, of indented blocks, and `python ...` in backticks."""
    text = (ROOT / document).read_text()
    lines = [
        line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.split("\n")
    ]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += re.findall(r"^    (\S.*)$", prose, re.MULTILINE)
    lines += re.findall(r"`((?:python|accelerate|visaudio-\w+) [^`]+)`", prose)
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if part and not part.startswith("#")]


COMMANDS = [(document, command) for document in DOCUMENTS for command in commands_of(document)]


def flags_in(script: Path) -> set[str]:
    """Its own, and those that it shares with another script."""
    text = script.read_text()
    if "add_scoring_options(parser)" in text:
        text += inspect.getsource(benchmark_scoring)
    elif "add_clip_options(parser)" in text:
        text += inspect.getsource(benchmark_scoring.add_clip_options)
    return set(re.findall(r'"(--[\w-]+)"', text))


def check(command: str) -> None:
    """Raises or exits where the program would refuse the command line."""
    words = shlex.split(command, comments=True)
    if words[0] in FOREIGN or words[0] == ".ci/run":
        return
    while "=" in words[0]:  # of the environment
        words.pop(0)
    if words[0] == "torchrun" or words[:2] == ["accelerate", "launch"]:
        # the launcher's own options come first, and are followed by the script, or -m and a module
        words = ["python", *words[min(words.index(word) for word in ("train.py", "-m") if word in words) :]]
    if words[0] in ("visaudio-sample", "visaudio-train"):
        words = ["python", f"{words[0].removeprefix('visaudio-')}.py", *words[1:]]
    assert words[0] == "python", f"not a command that is known here: {command}"
    if words[1] == "-m":
        program, arguments = words[2], words[3:]
    else:
        program, arguments = words[1], words[2:]
    if program == "sample.py":
        options = sample_cli._parser().parse_args(arguments)
        shipped = [path for path in options.video if path.parts[0] == "examples"]
        assert all((ROOT / path).is_file() for path in shipped), command
    elif program == "train.py":
        options = train_cli.parse(arguments)
        load_train_config(ROOT / options.config if options.config else None, options.overrides)
    elif program == "visaudio.hub":
        hub_cli._parser().parse_args(arguments)
    elif program == "bi_audio_dataset":
        builder_cli._parser().parse_args(arguments)
    elif program == "visaudio.evaluation.baselines":
        baselines_cli._parser().parse_args(arguments)
    elif program == "visaudio.evaluation":
        evaluation_cli._parser().parse_args(arguments)
    elif program == "visaudio.evaluation.compare":
        compare_cli._parser().parse_args(arguments)
    elif program == "visaudio.evaluation.listen":
        listen_cli._parser().parse_args(arguments)
    elif program == "visaudio.data.features":
        features_cli._parser().parse_args(arguments)
    else:
        script = ROOT / (f"{program.replace('.', '/')}.py" if words[1] == "-m" else program)
        assert script.is_file(), command
        unknown = {word for word in arguments if word.startswith("--")} - flags_in(script)
        assert not unknown, f"{program} has no {unknown}"


@pytest.mark.parametrize(("document", "command"), COMMANDS, ids=lambda value: " ".join(value.split())[:60])
def test_documented_command_is_accepted(document, command):
    try:
        check(command)
    except SystemExit as refused:
        pytest.fail(f"{document}: the program refuses `{command}` ({refused})")


def test_the_commands_of_each_program_are_found():
    """Guards the test above against finding nothing."""
    found = " ".join(command for _, command in COMMANDS)
    for program in (
        "sample.py",
        "train.py",
        "bi_audio_dataset synth",
        "bi_audio_dataset build",
        "benchmarks/",
    ):
        assert program in found
    with pytest.raises(SystemExit):
        check("python sample.py --video a.mp4 --no_such_flag")
    with pytest.raises(ValueError, match="unknown key"):
        check("python train.py flow.loop.stesp=3")
    with pytest.raises(AssertionError):
        check("python benchmarks/speed.py --no_such_flag")


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    flags = set()
    for action in parser._actions:
        flags |= {name for name in action.option_strings if name.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                flags |= options_of(sub)
    return flags - {"--help"}


def test_every_flag_is_used_by_a_test():
    tests = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("*.py") if p != Path(__file__))
    programs = (
        sample_cli, builder_cli, features_cli, hub_cli, evaluation_cli, compare_cli, listen_cli, baselines_cli
    )  # fmt: skip
    parsers = (program._parser() for program in programs)
    flags = set().union(*map(options_of, parsers))
    flags |= flags_in(ROOT / "visaudio" / "cli" / "train.py")
    assert sorted(flag for flag in flags if not re.search(rf"{flag}(?![\w-])", tests)) == []


def test_readme_is_short_and_has_what_it_should():
    assert len(README.splitlines()) < 200
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert (ROOT / picture).is_file()
    for heading in ("## Results", "## Known limits", "## Files"):
        assert heading in README
    table = re.search(r"## Results.*?\n((?:\|[^\n]*\n)+)", README, re.DOTALL)[1]
    header, _, *rows = table.strip().split("\n")
    assert header.rstrip(" |").endswith("command")
    assert rows and all("`python " in row.split("|")[-2] for row in rows)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    folder = (ROOT / document).parent
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text())
    assert [link for link in links if "://" not in link and not (folder / link).exists()] == []


def test_readme_python_calls_what_there_is():
    """The imports resolve, and each keyword given to the pipeline is one of its own."""
    import visaudio
    from visaudio.pipeline import ViSAudioPipeline

    assert visaudio.ViSAudio is ViSAudioPipeline
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    tree = ast.parse(block)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [(i.module, i.names[0].name) for i in imports] == [("visaudio", "ViSAudio")]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (call,) = (c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "pipe")
    keywords = {keyword.arg for keyword in call.keywords}
    assert keywords and keywords <= set(inspect.signature(ViSAudioPipeline.__call__).parameters)


def test_file_map_is_true_and_complete():
    table = README.split("## Files")[1]
    named = {
        path for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for path in row.split("`")[1::2]
    }
    assert sorted(path for path in named if not (ROOT / path).exists()) == []
    folders = {f"{path.relative_to(ROOT).parts[0]}/" for path in tracked_files() if path.parent != ROOT}
    assert {f for f in folders if not f.startswith(".")} <= named
    for package in ("visaudio", "bi_audio_dataset"):
        parts = {f"{package}/{p.parent.name}/" for p in (ROOT / package).glob("*/__init__.py")}
        missing = parts - named
        assert not missing, f"not in README's file map: {missing}"


def test_one_version():
    assert importlib.metadata.version("visaudio") == visaudio.__version__
    assert f"## {visaudio.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_what_is_imported_is_declared():
    """Each library that the packages import is a dependency of its own, not one by way of another."""
    names = importlib.metadata.packages_distributions()
    declared, optional = (
        {
            re.match(r"[\w.-]+", line)[0].lower().replace("_", "-")
            for line in importlib.metadata.requires("visaudio")
            if ("extra ==" in line) == extra
        }
        for extra in (False, True)
    )
    for path in [*(ROOT / "visaudio").rglob("*.py"), *(ROOT / "bi_audio_dataset").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            heads = []
            if isinstance(node, ast.Import):
                heads = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                heads = [node.module.split(".")[0]]
            for head in heads:
                if head in sys.stdlib_module_names or head in ("visaudio", "bi_audio_dataset", "matplotlib"):
                    continue
                found = {name.lower().replace("_", "-") for name in names.get(head, [head])}
                # what an extra brings may be imported where it is used, not by importing the package
                allowed = declared | optional if node.col_offset else declared
                assert found & allowed, f"{path.relative_to(ROOT)} imports {head}, which is not declared"


def test_nothing_of_one_machine_is_committed():
    """No path of a developer's machine, no package index, no lock file."""
    private = re.compile(r"/(?:work|root|home/\w+|Users/\w+|tmp)/\w|--(?:extra-)?index-url")
    found = []
    for path in tracked_files():
        if path == Path(__file__) or path.suffix in (".mp4", ".png", ".safetensors", ".flac"):
            continue
        text = path.read_text(errors="replace")
        found += [
            f"{path.relative_to(ROOT)}: {line.strip()}" for line in text.split("\n") if private.search(line)
        ]
    assert found == []
    locks = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "requirements.txt", "pip.conf"}
    assert [p for p in tracked_files() if p.name in locks] == []


def test_ci_runs_what_readme_says():
    script = (ROOT / ".ci" / "run").read_text()
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")]).returncode == 0
    for part in ("set -euo pipefail", "-m venv", "ruff check .", "ruff format --check .", "pytest"):
        assert part in script
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


# -------------------- example clips


@pytest.fixture(scope="module")
def make_clip():
    return load_script(ROOT / "examples" / "make_clip.py")


def test_example_clips_are_small_silent_and_what_their_script_makes(make_clip):
    for name, example in make_clip.EXAMPLES.items():
        path = ROOT / "examples" / f"{name}.mp4"
        info = media.probe(path)
        assert path.stat().st_size < 1e6
        assert (info.width, info.height, info.fps, info.audio_channels) == (640, 360, 25.0, None)
        assert info.duration_s == pytest.approx(example.duration_s, abs=1e-3)
        views = example.views()
        first = next(views).astype(np.float32)
        shown = media.read_frames(path, [0.0])[0].astype(np.float32)
        assert np.abs(shown - first).mean() < 4  # H.264 at crf 20


def test_example_is_a_lesson_in_left_and_right(make_clip):
    """The bird of README's picture goes beyond 20 degrees on both sides, and its own sound says so."""
    from visaudio.evaluation import cues

    bird = make_clip.EXAMPLES["bird"]
    audio, rate = bird.truth_ears()
    lateral_deg, ild_db = bird.lateral_deg(), cues.ild_db(audio, rate)
    level_db = cues.levels_db(audio, rate).max(axis=1)
    active = level_db > level_db.max() - 30
    assert lateral_deg[active].min() < -20 and lateral_deg[active].max() > 20
    assert cues.pearson(ild_db[active], lateral_deg[active]) > 0.95


@pytest.mark.slow
def test_scripts_write_where_they_are_told(make_clip, tmp_path, monkeypatch, capsys):
    short = make_clip.Example(index=make_clip.EXAMPLES["bell"].index, duration_s=0.2)
    monkeypatch.setattr(make_clip, "EXAMPLES", {"bell": short})
    make_clip.main(["--output", str(tmp_path)])
    assert media.probe(tmp_path / "bell.mp4").num_frames == 5
    figures = load_script(ROOT / "docs" / "make_figures.py")
    figures.main(["--truth", "--output", str(tmp_path)])
    assert (tmp_path / "bird.png").read_bytes()[:4] == b"\x89PNG"
    assert str(tmp_path / "bird.png") in capsys.readouterr().out


def test_test_files_have_names_of_their_own():
    """The folders of tests/ are no packages: of two files of one name pytest would read only the first."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
