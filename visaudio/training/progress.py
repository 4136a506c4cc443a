"""What a person sees of a run: one bar with time left, and plain lines that say where things go."""

import sys
import time

from tqdm import tqdm


def minutes(seconds: float) -> str:
    """'45 s', '12 min', '3 h 05 min', '12 days', '40 years'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    whole, days = round(seconds / 60), round(seconds / 86400)
    if days >= 5:
        return f"{days} days" if days < 730 else f"{round(days / 365)} years"
    return f"{whole} min" if whole < 90 else f"{whole // 60} h {whole % 60:02d} min"


class Progress:
    """Bar over the optimizer steps of one stage. Silent on all processes but the first.

    In a terminal: a tqdm bar. Elsewhere (a log file): one line at the steps where figures are reported,
    so that a log of hours stays readable.
    """

    def __init__(self, name: str, total: int, initial: int = 0, visible: bool = True):
        self.name, self.total, self.done, self.visible = name, total, initial, visible
        self._began, self._initial, self._said = time.monotonic(), initial, 0.0
        self._bar = None
        if visible and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=initial, desc=name, dynamic_ncols=True, smoothing=0.05)

    def set_total(self, total: int) -> None:
        self.total = total
        if self._bar is not None:
            self._bar.total = total
            self._bar.refresh()

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        if self._bar is not None:
            self._bar.update(steps)

    @property
    def seconds_per_step(self) -> float:
        return (time.monotonic() - self._began) / max(1, self.done - self._initial)

    def report(self, every_s: float = 15.0, **figures: float) -> None:
        """Show figures beside the bar; without a terminal a line at most every ``every_s`` seconds."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            return
        now = time.monotonic()
        if not self.visible or now - self._said < every_s:
            return
        self._said = now
        left = minutes(self.seconds_per_step * (self.total - self.done))
        say(
            f"{self.name}: step {self.done}/{self.total}  "
            f"{self.seconds_per_step:.3f} s/step  {left} left  {text}"
        )

    def say(self, text: str) -> None:
        if self.visible:
            say(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def say(text: str) -> None:
    """One line on stderr, above a bar if there is one."""
    tqdm.write(text, file=sys.stderr)
