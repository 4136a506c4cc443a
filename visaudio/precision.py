"""Whether a training runs in bfloat16 where it may, or in float32 throughout."""

import torch

PRECISIONS = ("auto", "bf16", "fp32")


def use_bf16(precision: str) -> bool:
    """Whether to autocast to bfloat16. On CPUs without bfloat16 instructions it would be several times
    slower.
    """
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capability = torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, "cpu") else ""
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return "AVX512" in capability and any(getattr(torch.cpu, name, bool)() for name in probes)
