"""python -m visaudio.evaluation.baselines: see cli/baselines.py."""

from __future__ import annotations


def main() -> int:
    from visaudio.cli.baselines import main as command

    return command()


if __name__ == "__main__":
    raise SystemExit(main())
