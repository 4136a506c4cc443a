"""What may be wrong with the files of an evaluation, and what is then done: nothing is dropped in silence."""

from __future__ import annotations

from collections import defaultdict

from visaudio.evaluation.results import Problem

# kind -> (what it is and what was done, whether --strict ends on it)
KINDS: dict[str, tuple[str, bool]] = {
    "missing_generated": ("no generated sound for this clip of the reference: left out", True),
    "missing_reference": ("no reference for this generated sound: left out", True),
    "unreadable": ("a file that cannot be read: clip refused", True),
    "truncated": ("a file that ends before it says it does: clip refused", True),
    "not_finite": ("a file that holds NaN or infinity: clip refused", True),
    "too_large": ("a file that goes beyond a million times full scale: clip refused", True),
    "low_rate": ("a sampling rate below 1 kHz: clip refused", True),
    "empty": ("a file without samples: clip refused", True),
    "too_short": ("less than 0.1 s to compare: clip refused", True),
    "channels": ("a file of more than two channels: clip refused", True),
    "mono": ("a file of one channel: given to both ears", True),
    "silent": ("a silent generated sound: scored as it is, so wrong wherever something should sound", True),
    "silent_reference": ("a silent reference: scored as it is", True),
    "length": ("lengths that differ by more than 0.1 s: both cut to the shorter", True),
    "length_slightly": ("lengths that differ by at most 0.1 s: both cut to the shorter", False),
    "rate": ("sampling rates that differ: each measure resamples both to its own", False),
    "no_picture": ("a video whose picture cannot be read: as if it had none", True),
    "lacks": ("a clip without what this measure needs: not scored by it", False),
    "failed": ("a clip on which this measure could not be taken: not scored by it", True),
    "not_common": ("a clip that one of two compared systems lacks: not in their tests", False),
    "other_reference": ("a reference that is not that of the first run: not in the tests", True),
    "reference_gone": ("a reference that is not there any more: taken to be that of the first run", False),
    "other_measure": ("a measure that is not as in the first run: its figures left out", True),
    "several_files": ("several files for one clip: the first of the documented order was taken", False),
    "below": ("a sound in a folder below the one given: passed over", False),
    "other_files": ("a file that is neither sound nor video: left alone", False),
    "remark": ("a figure to be read with care", False),
    "one_clip": ("a single clip: figures have no intervals and no tests", False),
    "no_reference": ("no reference was given: only measures that need none were taken", False),
}
LONG_DIFFERENCE_S = 0.1


class Problems:
    """Collects what was found; `found` is the section of the report."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str, str, bool], dict[str, str]] = defaultdict(dict)
        self._largest: dict[tuple[str, str, str, bool], float] = {}

    def add(
        self,
        kind: str,
        name: str,
        system: str = "",
        *,
        about: str = "",
        detail: str = "",
        amount: float = 0,
        of_reference: bool = False,
    ) -> None:
        """name: of the clip or file; about: which measure; detail: why; amount: in s, the largest is told;
        of_reference: the file is the reference's."""
        if kind not in KINDS:
            raise ValueError(f"no kind of problem '{kind}'")
        key = (kind, system, about, of_reference)
        self._names[key][name] = detail
        self._largest[key] = max(amount, self._largest.get(key, 0))

    def found(self) -> tuple[Problem, ...]:
        """In the order of KINDS, names sorted."""
        order = {kind: number for number, kind in enumerate(KINDS)}
        problems = []
        for key in sorted(self._names, key=lambda k: (order[k[0]], *k[1:])):
            kind, system, about, of_reference = key
            text, serious = KINDS[kind]
            names = sorted(self._names[key])
            details = tuple(self._names[key][name] for name in names)
            largest = self._largest[key]
            note = f"largest difference {largest:.3f} s" if largest else about
            details = details if any(details) else ()
            problems.append(Problem(kind, text, tuple(names), system, note, serious, details, of_reference))
        return tuple(problems)


def line(problem: Problem, most: int = 5) -> str:
    """One line for a terminal."""
    names = ", ".join(problem.names[:most]) + (", ..." if len(problem.names) > most else "")
    names = f": {names}" if problem.serious else ""
    if problem.kind == "below":
        names = f", e.g. {problem.names[0]}"
    whose = f"{problem.whose}: " if problem.whose else ""
    note = f" ({problem.note})" if problem.note else ""
    why = f" [{problem.details[0]}]" if problem.details and problem.details[0] else ""
    return f"{whose}{len(problem.names)} x {problem.text}{note}{names}{why}"
