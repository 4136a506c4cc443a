"""Imports go strictly down the floors of the design (section 4), read from the source by ast.

The table below is the design's, file by file. A file or folder that is not in it fails the test: give it
a floor. Rules:

- a module imports from lower floors only; siblings of one folder may share a floor, without cycles;
- bi_audio_dataset imports neither torch models nor visaudio; visaudio imports of it only schema and media,
  except for the files named in MAY_CALL_BUILDER (the design allows train.py and the baselines that);
- `if TYPE_CHECKING:` does not count, nor does what a file's own `main()` imports for its command line.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# a folder's floor holds for its files unless they are named themselves; schema (UserError) is below all
FLOORS = {
    "bi_audio_dataset": {
        "__init__": 0,
        "schema": -1,
        "unusable": -1,
        "sphere": 0,
        "channels": 0,
        "arguments": 0,
        "jsonl": 0,
        "limits": 0,
        "settings": 0,
        "ids": 0,
        "texts": 0,
        "libraries": 1,
        "media": 0,
        "ambisonics": 1,
        "hrtf": 1,
        "viewport": 1,
        "captions": 1,
        "figures": 0,
        "card_plots": 1,
        "card": 2,
        "card_command": 4,
        "migrations": 0,
        "upgrade": 4,
        "splits": 1,
        "shards": 1,
        "sources": 2,
        "sources.base": 1,
        "binaural": 2,
        "manifest": 0,
        "workplace": 0,
        "duplicates": 1,
        "filters": 1,
        "picture": 2,
        "plugins": 2,
        "sound": 2,
        "level": 2,
        "truth": 2,
        "views": 2,
        "removals": 1,
        "licences": 0,
        "selection": 3,
        "recipe": 3,
        "finalize": 3,
        "unit": 3,
        "unchanged": 3,
        "retry": 3,
        "executors": 2,
        "processes": 1,
        "ray_cluster": 1,
        "forecast": 4,
        "status": 4,
        "trajectory": 2,
        "render": 2,
        "camera_plan": 2,
        "clip": 3,
        "build_config": 2,
        "clip_manifest": 2,
        "validate": 3,
        "build": 3,
        "caption_files": 2,
        "caption_models": 2,
        "clip_rows": 2,
        "captioning": 3,
        "review": 4,
        "review.decisions": 2,
        "review.evidence": 2,
        "publish": 4,
        "publishable": 4,
        "push": 4,
        "rebuild": 4,
        "remove": 4,
        "build_command": 4,
        "__main__": 5,
    },
    "visaudio": {
        "__init__": 0,
        "config": 0,
        "sequence": 0,
        "attention": 0,
        "precision": 0,
        "flow": 0,
        "solver": 0,
        "guidance": 0,
        "hub_access": 0,
        "licences": 0,
        "weight_files": 0,
        "url_files": 0,
        "stored": 0,
        "tables": 0,
        "level": 0,
        "encoders": 1,
        "codec": 1,
        "model.rope": 1,
        "model.timing": 1,
        "model.layers": 2,
        "model.conditions": 2,
        "model.guess": 3,
        "model.blocks": 3,
        "model.spacetime": 3,
        "model.network": 4,
        "model.warm_start": 4,
        "model.own_start": 4,
        "data": 2,
        "windows": 2,
        "presets": 5,
        "sampling": 5,
        "references": 5,
        "components": 6,
        "part_files": 0,
        "model_card": 6,
        "model_folder": 6,
        "hub": 6,
        "variants": 6,
        "pipeline": 6,
        "training": 6,
        "training.full_run": 7,  # the body of train.py: ends with hub.save
        "evaluation": 6,
        "evaluation.page": 5,  # parts of the report, which is on the floor of its folder
        "evaluation.listening": 5,
        "evaluation.__main__": 9,
        "evaluation.generation": 7,  # loads models
        "evaluation.cues": 1,  # validation in training hears by the same measures
        "evaluation.onsets": 1,
        "evaluation.baselines": 7,
        "evaluation.audio_networks": 1,
        "cli": 8,  # above all that it starts
    },
}
# of the builder, these may load models, inside functions: importing them must not import torch
PLUG_INS = ("bi_audio_dataset.caption_models",)
HEAVY = {"torch", "visaudio", "transformers", "open_clip", "accelerate"}
MAY_CALL_BUILDER = ("visaudio.training.full_run", "visaudio.evaluation.baselines")
SHARED = ("bi_audio_dataset.schema", "bi_audio_dataset.media")


def modules() -> dict[str, Path]:
    """Dotted name -> file; a package is named after its folder."""
    found = {}
    for package in FLOORS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def floor(module: str) -> int:
    """The floor of the module, or of the nearest folder that the table names."""
    package, _, rest = module.partition(".")
    table, rest = FLOORS[package], rest or "__init__"
    while rest:
        if rest in table:
            return table[rest]
        rest = rest.rpartition(".")[0]
    if MODULES[module].name == "__init__.py":  # a folder whose files are named one by one
        return 0
    raise KeyError(f"{module} has no floor; add it to the table in {Path(__file__).name}")


def walk(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements below `node`, less type-checking blocks and `main`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.FunctionDef) and child.name == "main":
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        yield from walk(child)


def imports_of(module: str) -> set[str]:
    """Full dotted names that the module imports; `from a import b` is a.b where that is a module."""
    path, names = MODULES[module], set()
    for node in walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            continue
        base = node.module or ""
        if node.level:  # relative
            here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            base = ".".join([*here[: len(here) - node.level + 1], *([base] if base else [])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            names.add(full if full in MODULES else base)
    return names


def imports_at_the_top(module: str) -> set[str]:
    """Names that importing the module imports: its statements outside of functions."""
    tree = ast.parse(MODULES[module].read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    top = [node for node in nodes if id(node) not in inside]
    return {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names} | {
        node.module or "" for node in top if isinstance(node, ast.ImportFrom)
    }


def of_project(module: str) -> set[str]:
    return {name for name in imports_of(module) if name in MODULES and name != module}


def siblings(a: str, b: str) -> bool:
    """Files of one folder, or a folder's __init__ and its files."""
    folder_a, folder_b = (str(MODULES[m].parent) for m in (a, b))
    return folder_a == folder_b


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module):
    wrong = []
    for name in of_project(module):
        if name.partition(".")[0] != module.partition(".")[0]:
            continue
        if floor(name) > floor(module) or (floor(name) == floor(module) and not siblings(name, module)):
            wrong.append(f"{module} (floor {floor(module)}) imports {name} (floor {floor(name)})")
    assert wrong == []


def test_no_cycles():
    graph = {module: of_project(module) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for name in graph[module]:
                if not module.startswith(name + "."):  # a file may import from its own package's head
                    visit(name, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.startswith("bi_audio_dataset")))
def test_the_builder_stands_alone(module):
    heads = {name.partition(".")[0] for name in imports_of(module)}
    if module in PLUG_INS:
        assert "visaudio" not in heads
        heads = {name.partition(".")[0] for name in imports_at_the_top(module)}
    assert heads.isdisjoint(HEAVY)


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.startswith("visaudio")))
def test_the_model_uses_only_schema_and_media_of_the_builder(module):
    if module.startswith(MAY_CALL_BUILDER):
        return
    foreign = {name for name in imports_of(module) if name.startswith("bi_audio_dataset")}
    assert {name for name in foreign if not name.startswith(SHARED)} == set()


def test_the_table_names_only_what_could_exist():
    """A floor is a whole number, and the design's order of the large parts stands."""
    table = FLOORS["visaudio"]
    order = ["flow", "codec", "model.network", "presets", "hub", "cli"]
    assert [table[name] for name in order] == sorted({table[name] for name in order})
