"""BiAudio-Synth: procedural 360-degree scenes with first-order ambisonics and known truth."""
