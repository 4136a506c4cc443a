"""python -m visaudio.evaluation: figures of generated binaural sounds. Flags: --help."""

import sys

from visaudio.cli.evaluation import main

if __name__ == "__main__":
    sys.exit(main())
