"""Which codec a config is of."""

from visaudio.codec.base import Codec
from visaudio.codec.dac import DacCodec, DacCodecConfig
from visaudio.codec.mmaudio import MMAudioCodec, MMAudioCodecConfig
from visaudio.codec.spectral import SpectralCodec, SpectralCodecConfig

CodecConfig = SpectralCodecConfig | DacCodecConfig | MMAudioCodecConfig

CODECS: dict[type, type[Codec]] = {
    SpectralCodecConfig: SpectralCodec,
    DacCodecConfig: DacCodec,
    MMAudioCodecConfig: MMAudioCodec,
}


def build_codec(config: CodecConfig) -> Codec:
    """The codec of a config, with the weights that it names, else random ones."""
    return CODECS[type(config)](config)
