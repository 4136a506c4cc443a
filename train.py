"""Train a model: `accelerate launch train.py`. See visaudio/cli/train.py."""

from visaudio.cli.train import main

if __name__ == "__main__":  # the builder's workers import this file
    raise SystemExit(main())
