"""python sample.py --video x.mp4: x.binaural.mp4 and x.binaural.flac. Flags: --help."""

import sys

from visaudio.cli.sample import main

if __name__ == "__main__":
    sys.exit(main())
