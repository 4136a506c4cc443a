"""The captioner's wiring, on tiny random models of the real classes that are saved and loaded as real ones
are.
"""

import json

import numpy as np
import pytest

from bi_audio_dataset import caption_models
from bi_audio_dataset.caption_models import AUDIO_RATE_HZ, ClipMedia, ModelConfig
from bi_audio_dataset.captioning import CaptioningConfig, caption_clip
from bi_audio_dataset.schema import UserError

pytestmark = pytest.mark.slow

SPECIAL = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
OMNI_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>{% else %}{{ part['text'] }}{% "
    "endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}\nassistant:{% endif %}"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}\n"
    "{% if enable_thinking is defined and not enable_thinking %}(no thinking) {% endif %}assistant:{% endif "
    "%}"
)


def byte_tokenizer(template: str, **special):
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    vocabulary = {sign: i for i, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], extra_special_tokens=special)
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def omni(tmp_path_factory):
    """A checkpoint of the whole Qwen2.5-Omni class, less its voice, as the Hub's has its keys under
    `thinker.`.
    """
    import torch
    from transformers import (
        Qwen2_5OmniConfig,
        Qwen2_5OmniForConditionalGeneration,
        Qwen2_5OmniProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        WhisperFeatureExtractor,
    )

    folder = tmp_path_factory.mktemp("omni")
    tokenizer = byte_tokenizer(OMNI_TEMPLATE, **SPECIAL)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    thinker = {
        "text_config": {
            **small,
            "num_key_value_heads": 1,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        "audio_config": {
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "d_model": 32,
            "output_dim": 32,
        },
        "audio_token_index": ids["audio_token"],
        "image_token_index": ids["image_token"],
        "video_token_index": ids["video_token"],
        "audio_start_token_id": ids["audio_bos_token"],
        "audio_end_token_id": ids["audio_eos_token"],
        "vision_start_token_id": ids["vision_bos_token"],
        "vision_end_token_id": ids["vision_eos_token"],
    }
    torch.manual_seed(0)
    config = Qwen2_5OmniConfig(thinker_config=thinker, enable_audio_output=False)
    Qwen2_5OmniForConditionalGeneration(config).save_pretrained(folder)
    size = {"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28}
    Qwen2_5OmniProcessor(
        Qwen2VLImageProcessor(size=size),
        Qwen2VLVideoProcessor(size=size),
        WhisperFeatureExtractor(feature_size=128, chunk_length=30),
        tokenizer,
        chat_template=OMNI_TEMPLATE,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def instruct(tmp_path_factory):
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("instruct")
    tokenizer = byte_tokenizer(CHAT_TEMPLATE)
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def models(omni, instruct) -> ModelConfig:
    return ModelConfig(
        str(omni), str(instruct), "cpu", "float32", max_description_tokens=6, max_caption_tokens=6
    )


def clip(level: int = 60, tone_hz: float = 440.0) -> ClipMedia:
    frames = np.full((4, 36, 64, 3), level, np.uint8)
    times = np.arange(2 * AUDIO_RATE_HZ) / AUDIO_RATE_HZ
    return ClipMedia(frames, 2.0, np.sin(2 * np.pi * tone_hz * times).astype(np.float32))


def test_the_listener_hears_sees_and_depends_on_the_seed_alone(omni, instruct, monkeypatch):
    import torch

    listener = caption_models.OmniListener(models(omni, instruct))
    given = {}
    generate = listener.model.generate

    def watched(**inputs):
        given.update(inputs)
        return generate(**inputs)

    monkeypatch.setattr(listener.model, "generate", watched)
    state = torch.random.get_rng_state()
    texts = [listener.describe(clip(), seed, 1.0) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(state, torch.random.get_rng_state())
    assert listener.describe(clip(), 1, 0.0) == listener.describe(clip(), 2, 0.0)  # greedy: no chance
    # 4 frames in 2 pairs, and 2 s of sound: 200 mel frames, of which every fourth becomes a token
    assert given["video_grid_thw"][0, 0] == 2 and given["use_audio_in_video"] is True
    ids = given["input_ids"][0].tolist()
    token = {name: listener.processor.tokenizer.convert_tokens_to_ids(text) for name, text in SPECIAL.items()}
    assert ids.count(token["audio_token"]) == 50
    assert ids.count(token["video_token"]) == int(given["video_grid_thw"].prod()) // 4

    # picture and sound reach the network: another picture or tone gives other probabilities
    def first_logits(media):
        listener.describe(media, 1, 0.0)
        inputs = {k: v for k, v in given.items() if hasattr(v, "shape")}
        with torch.inference_mode():
            return listener.model(**inputs, use_audio_in_video=True).logits[0, -1]

    base = first_logits(clip())
    assert torch.equal(base, first_logits(clip()))
    assert not torch.allclose(base, first_logits(clip(level=200)), atol=1e-5)
    assert not torch.allclose(base, first_logits(clip(tone_hz=3000.0)), atol=1e-5)


def test_the_condenser_is_asked_in_the_models_own_form(omni, instruct, monkeypatch):
    condenser = caption_models.InstructCondenser(models(omni, instruct))
    asked = []
    generate = condenser.model.generate

    def watched(**inputs):
        asked.append(condenser.tokenizer.decode(inputs["input_ids"][0]))
        return generate(**inputs)

    monkeypatch.setattr(condenser.model, "generate", watched)
    first = condenser.condense("A {bell} rings.", None, 3, 0.8)
    assert first == condenser.condense("A {bell} rings.", None, 3, 0.8)
    condenser.condense("A {bell} rings.", "it has brackets", 3, 0.8)
    assert asked[0] == asked[1] and asked[0].endswith("(no thinking) assistant:")
    assert "A {bell} rings." in asked[0] and "refused" not in asked[0]
    assert "refused because it has brackets" in asked[2]


def test_untrained_models_end_in_the_queue_with_what_they_said(omni, instruct):
    config = models(omni, instruct)
    listener, condenser = caption_models.OmniListener(config), caption_models.InstructCondenser(config)
    outcome = caption_clip("a", clip(), listener, condenser, CaptioningConfig(temperatures=(0.0, 1.0)))
    assert outcome.caption is None
    assert len(outcome.attempts) == 2 and outcome.attempts[0].raw != outcome.attempts[1].raw


def test_models_of_another_kind_missing_weights_and_folders_are_one_line(omni, instruct, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    config = models(omni, instruct)
    with pytest.raises(UserError, match="is a qwen3 model, expected Qwen2.5-Omni"):
        caption_models.OmniListener(ModelConfig(listener=str(instruct), device="cpu"))
    with pytest.raises(UserError, match="cannot be loaded .*: give a folder or a Hub id") as error:
        caption_models.InstructCondenser(ModelConfig(condenser=str(tmp_path / "nowhere"), device="cpu"))
    assert "\n" not in str(error.value)
    holed = tmp_path / "holed"
    shutil.copytree(instruct, holed)
    weights = load_file(holed / "model.safetensors")
    gone = next(name for name in weights if "mlp" in name)
    save_file({k: v for k, v in weights.items() if k != gone}, holed / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights of"):
        caption_models.InstructCondenser(ModelConfig(condenser=str(holed), device="cpu"))
    (holed / "chat_template.jinja").unlink(missing_ok=True)
    stated = json.loads((holed / "tokenizer_config.json").read_text())
    stated.pop("chat_template", None)
    (holed / "tokenizer_config.json").write_text(json.dumps(stated))
    with pytest.raises(UserError, match="no chat template"):
        caption_models.InstructCondenser(ModelConfig(condenser=str(holed), device="cpu"))
    with pytest.raises(UserError, match="expected auto, cpu, cuda"):
        caption_models.InstructCondenser(ModelConfig(config.listener, config.condenser, "toaster"))


def test_weights_that_are_cut_short_are_one_line(instruct, tmp_path):
    import shutil

    cut = tmp_path / "cut"
    shutil.copytree(instruct, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="'.*cut' cannot be loaded .*: give a folder or a Hub id") as error:
        caption_models.InstructCondenser(ModelConfig(condenser=str(cut), device="cpu"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has", "needs more memory than cpu has free"),
        (
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried",
            "needs more memory than cpu",
        ),
        ("CUDA error: unspecified\nlaunch failure", "failed on cpu: CUDA error: unspecified launch failure"),
    ],
)
def test_models_that_fail_at_a_clip_are_one_line(omni, instruct, monkeypatch, message, line):
    def fail(**inputs):
        raise RuntimeError(message)

    config = models(omni, instruct)
    listener, condenser = caption_models.OmniListener(config), caption_models.InstructCondenser(config)
    for model, ask in (
        (listener, lambda: listener.describe(clip(), 1, 0.0)),
        (condenser, lambda: condenser.condense("A bell.", None, 1, 0.0)),
    ):
        monkeypatch.setattr(model.model, "generate", fail)
        with pytest.raises(UserError, match=line) as error:
            ask()
        assert "\n" not in str(error.value) and model.name in str(error.value)
