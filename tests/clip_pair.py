"""One small CLIP twice: as transformers' CLIPModel with random weights, and in open_clip's published form."""

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor

BPE_VOCAB = 49408
SIZE, PATCH, WIDTH, TEXT_WIDTH, EMBED, HEAD = 56, 14, 96, 64, 48, 16
LAYERS, TEXT_LAYERS = 3, 2
LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
OTHERS = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
}


def transformers_clip(activation: str = "quick_gelu"):
    """Every weight random, norms and biases too; `activation` as transformers calls it."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_act": activation, "attention_dropout": 0.0}
    config = CLIPConfig(
        vision_config=tower
        | {
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD,
            "image_size": SIZE,
            "patch_size": PATCH,
        },
        text_config=tower
        | {
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 4 * TEXT_WIDTH,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": TEXT_WIDTH // HEAD,
            "vocab_size": BPE_VOCAB,
            "max_position_embeddings": 77,
        },
        projection_dim=EMBED,
    )
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = CLIPModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_((1.0 if "norm" in name and name.endswith("weight") else 0.0) + _noise(parameter))
    return model


def _noise(parameter: Tensor) -> Tensor:
    return 0.1 * torch.randn_like(parameter)


def open_clip_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names -> open_clip's; query, key and value in one matrix, projections transposed."""
    out = {
        "logit_scale": state["logit_scale"],
        "text_projection": state["text_projection.weight"].T.contiguous(),
        "visual.proj": state["visual_projection.weight"].T.contiguous(),
    }
    for name, value in state.items():
        stem, _, leaf = name.rpartition(".")
        if name in OTHERS or stem in OTHERS:
            out[OTHERS.get(name) or f"{OTHERS[stem]}.{leaf}"] = value
        elif ".encoder.layers." in name:
            tower, rest = name.split(".encoder.layers.")
            number, _, part = rest.partition(".")
            where = f"{'visual.' if tower == 'vision_model' else ''}transformer.resblocks.{number}"
            part = part.removesuffix(f".{leaf}")
            if part in LAYER:
                out[f"{where}.{LAYER[part]}.{leaf}"] = value
            elif part == "self_attn.q_proj":
                parts = [state[name.replace("q_proj", f"{one}_proj")] for one in "qkv"]
                out[f"{where}.attn.in_proj_{leaf}"] = torch.cat(parts)
    return out


def description(quick_gelu: bool, **more) -> dict:
    """open_clip_config.json of the pair, in the layout of apple/DFN5B-CLIP-ViT-H-14-384."""
    model = {
        "embed_dim": EMBED,
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            "image_size": SIZE,
            "layers": LAYERS,
            "width": WIDTH,
            "head_width": HEAD,
            "patch_size": PATCH,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": BPE_VOCAB,
            "width": TEXT_WIDTH,
            "heads": TEXT_WIDTH // HEAD,
            "layers": TEXT_LAYERS,
        },
    }
    picture = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
    return {"model_cfg": model | more, "preprocess_cfg": picture}


def write_repository(folder: Path, model, quick_gelu: bool, **more) -> Path:
    """The two files of a public CLIP."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(description(quick_gelu, **more)))
    torch.save(open_clip_state(model.state_dict()), folder / "open_clip_pytorch_model.bin")
    return folder


def write_cache(cache: Path, repository: str, files: Path, commit: str = "0" * 40) -> None:
    """A folder's files as huggingface_hub keeps what it has fetched once."""
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in files.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
