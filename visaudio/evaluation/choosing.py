"""Which measures an evaluation takes, and with whose weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import measures as suite_of
from visaudio.evaluation.measures import Measure, Settings, Unavailable


def choose_measures(
    wanted: Sequence[str] | None, settings: Settings, say: Callable[[str], None]
) -> tuple[list[Measure], dict[str, str]]:
    """The measures, and why others could not be had; wanted: None for all that are registered.

    Unavailable is raised for one asked for by name, UserError for weights that no measure asks for.
    """
    check_names(wanted)
    names = list(suite_of.REGISTRY) if wanted is None else list(dict.fromkeys(wanted))
    weights = _Overrides(settings.weights)
    settings = replace(settings, weights=weights)
    chosen, unavailable = [], {}
    for name in names:
        try:
            chosen.append(suite_of.make(name, settings))
        except Unavailable as error:
            if wanted is not None:
                raise Unavailable(f"{name}: {error}") from error
            unavailable[name] = str(error)
            say(f"without {name}: {error}")
    if unasked := sorted(set(weights) - weights.asked):
        known = ", ".join(sorted(weights.asked)) or "none at all"
        raise UserError(f"--weights {unasked[0]}=...: the measures taken ask for {known}")
    if not chosen:
        raise UserError("no measure can be had: " + ("; ".join(unavailable.values()) or "none is registered"))
    taken: dict[str, str] = {}
    for measure in chosen:
        if measure.name not in names:
            raise ValueError(f"'{measure.name}' is registered under another name, of {', '.join(names)}")
        for spec in measure.figures:
            if taken.setdefault(spec.name, measure.name) != measure.name:
                raise ValueError(f"{measure.name} and {taken[spec.name]} both have a figure '{spec.name}'")
    return chosen, unavailable


class _Overrides(dict):
    """Weights by name, and which names the measures have asked for: a misspelt one must not pass."""

    def __init__(self, weights: Mapping[str, str]) -> None:
        super().__init__(weights)
        self.asked: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:
        self.asked.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)


def check_names(names: Sequence[str] | None) -> None:
    """None: all. UserError for a name that there is not, or no name at all."""
    if names is not None and not names:
        known = ", ".join(suite_of.REGISTRY)
        raise UserError(f"--measures names none, expected any of {known}; all that can be had without it")
    for name in names or ():
        if name not in suite_of.REGISTRY:
            raise UserError(f"there is no measure '{name}', expected of {', '.join(suite_of.REGISTRY)}")
