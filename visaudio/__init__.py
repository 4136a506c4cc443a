"""visaudio: end-to-end binaural audio from silent video (the ViSAudio method, arXiv 2512.03036)."""

__version__ = "0.1.0"
