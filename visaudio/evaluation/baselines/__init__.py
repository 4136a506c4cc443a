"""Baselines: sounds that a binaural model must beat, or cannot, one folder of files each.

    python -m visaudio.evaluation.baselines NAME --dataset DIR_OR_REPO --split test --output DIR

`NAMES` says what there is. Each clip's sound is DIR/NAME/ID.flac, and ID.json says how it was made;
`python -m visaudio.evaluation --generated DIR/NAME` scores them. docs/evaluation.md has the definitions.

Two stages, generate mono and then spatialise, come in three kinds, by where the direction comes from. All
take the same mono sound and give each moment's sound as a whole one direction: what a mono sound of several
sources cannot tell apart, they cannot set apart (the learned head may, by frequency).
"""

from __future__ import annotations

NAMES = {
    "model": "the model's own sound, both ears",
    "mono": "the model's own sound, both ears averaged, copied to both",
    "shuffled": "the model told of another clip's picture (floor)",
    "codec": "codec round trip of the truth (ceiling)",
    "two-stage-truth": "mono, spatialised towards the true direction",
    "two-stage-motion": "mono, spatialised towards what moves in the picture",
    "two-stage-learned": "mono, spatialised by a learned mono-to-binaural head",
}
