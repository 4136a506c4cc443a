"""bi_audio_dataset: from 360-degree video with ambisonics to perspective video with binaural audio."""
