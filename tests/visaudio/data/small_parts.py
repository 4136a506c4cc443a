"""The smallest real parts that features can be made with."""

import torch

from visaudio.codec.spectral import SpectralCodec, SpectralCodecConfig
from visaudio.data.features import Parts, extract_features
from visaudio.encoders.clip import ClipConfig, ClipEncoder
from visaudio.encoders.synchformer import SynchformerConfig, SynchformerEncoder
from visaudio.sequence import SequenceConfig


def make_parts(seed: int = 0, **sequence) -> Parts:
    torch.manual_seed(seed)
    codec = SpectralCodec(SpectralCodecConfig(latent_dim=32, encoder_width=16, decoder_width=16))
    clip = ClipEncoder(
        ClipConfig(
            image_size=32, patch_size=8, width=32, layers=1, embed_dim=16, text_layers=1, grid_columns=4
        )
    )
    sync = SynchformerEncoder(SynchformerConfig(image_size=32, width=16, depth=1, heads=2))
    lengths = SequenceConfig(**{"duration_s": 2.0, "sample_rate": 22050, **sequence})
    return Parts(codec.eval(), clip.eval(), sync.eval(), lengths)


def extract(dataset, output, parts, **more):
    return extract_features(dataset, output, parts, **{"workers": 0, "progress": False, **more}).folder
