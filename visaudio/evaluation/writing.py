"""An evaluation's files: results.json, clips.csv, table.csv, comparisons.csv; and its table for a terminal.

All are written beside and then renamed. CSV holds the values as measured (no factor, all digits), an empty
cell where there is none, and beside them the unit that this is (`FigureSpec.measured_unit`); the table on the
terminal shows them as the page does.
"""

from __future__ import annotations

import csv
import io
import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from visaudio import __version__
from visaudio.evaluation.measures import FigureSpec
from visaudio.evaluation.results import Figure, Results
from visaudio.stored import write_whole
from visaudio.tables import commit

RESULTS, CLIPS, TABLE, COMPARISONS = "results.json", "clips.csv", "table.csv", "comparisons.csv"
PACKAGES = ("numpy", "scipy", "soxr", "soundfile", "av", "torch")
ARROWS = {"higher": " (+)", "lower": " (-)", "": ""}


def stamped(results: Results, command: str) -> Results:
    """With the command, and what it ran on."""
    here = {
        "command": command,
        "commit": commit(Path(__file__).parent),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"visaudio": __version__, "python": platform.python_version(), **_versions()},
    }
    return replace(results, made={**results.made, **here})


def _versions() -> dict[str, str]:
    """Of the packages that figures may depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(results: Results, output: Path) -> Results:
    """Writes the files (comparisons.csv of several systems only); returns the results, with their folder."""
    write_whole(output / CLIPS, _csv(_clip_lines(results)).encode())
    write_whole(output / TABLE, _csv(_table_lines(results)).encode())
    if results.comparisons:
        write_whole(output / COMPARISONS, _csv(_comparison_lines(results)).encode())
    write_whole(output / RESULTS, (results.to_json() + "\n").encode())  # last: where it is, the others are
    return replace(results, folder=output.resolve())


def _csv(lines: Iterator[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_cell(value) for value in line] for line in lines)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _clip_lines(results: Results) -> Iterator[Sequence[Any]]:
    """One for each clip and system."""
    names = [spec.name for spec in results.specs.values() if spec.per_clip]
    yield ["id", "system", "duration_s", *names, "sound", "reference"]
    for clip in results.clips:
        for system, sound in clip.sounds.items():
            values = [sound.values.get(name) for name in names]
            yield [clip.id, system, sound.duration_s, *values, sound.path, clip.reference]


def _table_lines(results: Results) -> Iterator[Sequence[Any]]:
    """One for each group of clips ("": all), system and figure; of: the clips asked of the system, if all."""
    asked = {system.name: system.of or None for system in results.systems}
    yield ["group", "system", "measure", "figure", "unit", "better", "value", "low", "high", "clips", "of"]
    for group, figures in {"": results.figures, **results.group_figures}.items():
        for system, found in figures.items():
            for measure in results.measures:
                for spec in measure.figures:
                    if (f := found.get(spec.name)) is not None:
                        about = [group, system, measure.name, spec.name, spec.measured_unit, spec.better]
                        of = None if group else asked.get(system)
                        yield [*about, f.value, f.low, f.high, f.clips, of]


def _comparison_lines(results: Results) -> Iterator[Sequence[Any]]:
    """One for each pair of systems and figure: a less b."""
    yield ["a", "b", "figure", "unit", "value", "low", "high", "clips", "p_bootstrap", "p_wilcoxon", "p_holm"]
    for c in results.comparisons:
        d = c.difference
        about = [c.a, c.b, c.figure, results.specs[c.figure].measured_unit]
        yield [*about, d.value, d.low, d.high, d.clips, c.p_bootstrap, c.p_wilcoxon, c.p_holm]


# -------------------- a terminal


def table_text(results: Results) -> str:
    """One line per figure, under its measure's name (measures have figures of one title); one column per
    system: value [low, high]; (+) higher is better, (-) lower."""
    systems = [system.name for system in results.systems]
    lines = [["", *(f"{s.name} ({s.counted})" for s in results.systems)]]
    for measure in results.measures:
        lines.append([measure.name, *("" for _ in systems)])
        for spec in measure.figures:
            unit = f" [{spec.unit}]" if spec.unit else ""
            cells = [_shown(results.figures[name].get(spec.name), spec) for name in systems]
            lines.append([f"  {spec.title}{unit}{ARROWS[spec.better]}", *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _shown(figure: Figure | None, spec: FigureSpec) -> str:
    if figure is None or not math.isfinite(figure.value):
        return "-"
    value, low, high = (f"{spec.factor * v:.{spec.digits}f}" for v in (figure.value, figure.low, figure.high))
    return value if math.isnan(figure.low) else f"{value} [{low}, {high}]"


def shown_command(arguments: Sequence[str], module: str = "visaudio.evaluation") -> str:
    """The command as typed, less where this machine keeps its folders (NAME=DIR too)."""
    import shlex

    def short(argument: str) -> str:
        name, equals, path = argument.rpartition("=")
        return f"{name}{equals}{Path(path).name if Path(path).is_absolute() else path}"

    return shlex.join(["python", "-m", module, *map(short, arguments)])
