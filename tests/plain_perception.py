"""PE-Spatial as the paper describes it, in few lines: what the encoder's tokens are held against."""

import torch
import torch.nn.functional as F
from torch import Tensor


def noisy(module: torch.nn.Module) -> torch.nn.Module:
    """Its parameters moved, norms and biases too, so that none is one or zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def rotated(x: Tensor, side: int) -> Tensor:
    """(B, heads, 1 + n, d): 2-D rotary positions; the class token stays. Half of d turns with the column,
    half with the row, by pairs of neighbours; both count from 1."""
    d = x.shape[-1]
    speed = 10000.0 ** (-torch.arange(0, d // 2, 2) / (d // 2))
    row, column = torch.meshgrid(torch.arange(side) + 1.0, torch.arange(side) + 1.0, indexing="ij")
    angle = torch.cat([column.flatten()[:, None] * speed, row.flatten()[:, None] * speed], dim=1)
    turn = torch.polar(torch.ones(1 + side**2, d // 2), torch.cat([torch.zeros(1, d // 2), angle]))
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(-2)


def plain_tokens(state: dict[str, Tensor], pictures: Tensor, patch: int, heads: int) -> Tensor:
    """Pictures (B, 3, S, S) in [0, 1] -> patch tokens (B, H, W, D): a ViT with a class token, a norm before
    its blocks and none after, absolute and rotary positions. `state` in timm's names."""
    width = state["cls_token"].shape[-1]
    batch, side = len(pictures), pictures.shape[-1] // patch

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = F.conv2d(pictures * 2 - 1, state["patch_embed.proj.weight"], stride=patch).flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(batch, -1, -1), x], dim=1) + state["pos_embed"]
    x = norm(x, "norm_pre")
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    for block in (f"blocks.{number}" for number in range(blocks)):
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.view(batch, -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(rotated(q, side), rotated(k, side), v)
        x = x + linear(out.transpose(1, 2).flatten(2), f"{block}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    return x[:, 1:].unflatten(1, (side, side))
