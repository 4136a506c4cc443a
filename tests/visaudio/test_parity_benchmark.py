"""benchmarks/parity.py measures what it says, within the bounds that it prints."""

from pathlib import Path

import pytest
import torch
from scripts import load_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "parity.py"


@pytest.fixture(scope="module")
def parity():
    if not SCRIPT.is_file():
        pytest.skip("no benchmarks/ beside the tests")
    return load_script(SCRIPT)


def test_an_error_is_the_largest_and_shapes_must_agree(parity):
    assert parity.error(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 1.75])) == 0.5
    with pytest.raises(ValueError, match="shapes differ"):
        parity.error(torch.ones(1, 2), torch.ones(2))


@pytest.mark.parametrize("part", ["synchformer", "dac", "mmaudio_codec", "perception"])
def test_within_its_bounds(parity, shared_dir, part):
    with torch.inference_mode():
        torch.manual_seed(0)
        rows = list(getattr(parity, part)(shared_dir / "golden"))
    assert rows and all(0 <= row.error < row.bound for row in rows)
    assert any(row.error > 0 for row in rows)


def test_a_code_that_is_no_tie_is_seen(parity, shared_dir):
    from safetensors.torch import load_file

    from visaudio.codec.dac import DacCodec, DacCodecConfig

    codec = DacCodec(DacCodecConfig(weights=str(shared_dir / "golden" / "dac_reduced.pth")))
    stored = load_file(shared_dir / "golden" / "dac_reduced_io.safetensors")
    with torch.inference_mode():
        latents = codec.encode(stored["audio"])
        codes = stored["codes"].clone()
        codes[0, 1, 2] = (codes[0, 1, 2] + 1) % codec.config.codebook_size
        assert parity._code_distance(codec, latents, codes) > 1e-3
