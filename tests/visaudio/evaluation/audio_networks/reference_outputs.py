"""What the public packages give for the networks of small_audio_networks.py: reference_outputs.json.

Not a test: it needs packages that the tests do without. In an environment of its own, over this one's torch:

    python -m venv --system-site-packages reference && reference/bin/pip install torchlibrosa torchmetrics
    reference/bin/pip install --no-deps panns-inference==0.1.1 hear21passt==0.0.26 torchvggish==0.2
    reference/bin/pip install --no-deps torchaudio torch-fidelity
    PYTHONPATH=tests reference/bin/python tests/visaudio/evaluation/audio_networks/reference_outputs.py

panns_inference and torchaudio are not imported as packages: the one downloads, the other refuses a torch that
it was not built for. Only files of theirs are.
"""

import contextlib
import io
import json
import sys
import warnings
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from small_audio_networks import (
    CHANNELS,
    CLASSES,
    DEPTH,
    HEADS,
    HIDDEN,
    WIDTH,
    by_formula,
    embeddings,
    sounds,
)
from torch import nn

PANNS = {
    "cnn14_16k": {"sample_rate": 16000, "window_size": 512, "hop_size": 160, "fmin": 50, "fmax": 8000},
    "cnn14_32k": {"sample_rate": 32000, "window_size": 1024, "hop_size": 320, "fmin": 50, "fmax": 14000},
}


def file_of(package: str, file: str, name: str) -> ModuleType:
    """One file of a package, under `name`, without what the package does at import."""
    root = Path(find_spec(package).submodule_search_locations[0])
    spec = spec_from_file_location(name, root / file)
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stand_in(name: str, **attributes) -> ModuleType:
    sys.modules[name] = module = ModuleType(name)
    module.__path__ = []
    vars(module).update(attributes)
    return module


def rounded(values: torch.Tensor) -> list:
    return [float(f"{value:.7g}") for value in values.detach().flatten().tolist()]


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def panns(found: dict) -> None:
    stand_in("panns")
    file_of("panns_inference", "pytorch_utils.py", "panns.pytorch_utils")
    models = file_of("panns_inference", "models.py", "panns.models")
    for name, settings in PANNS.items():
        network = models.Cnn14(mel_bins=64, classes_num=527, **settings)
        found["shapes"][name] = shapes(network)
        for i, (before, after) in enumerate(zip((1, *CHANNELS), CHANNELS, strict=False)):
            setattr(network, f"conv_block{i + 1}", models.ConvBlock(before, after))
        network.fc1 = nn.Linear(CHANNELS[-1], CHANNELS[-1])
        network.fc_audioset = nn.Linear(CHANNELS[-1], CLASSES)
        network.load_state_dict(by_formula(network.state_dict()))
        network.eval()
        audio = sounds(1.3, settings["sample_rate"])
        output = network(audio)
        mel = network.logmel_extractor(network.spectrogram_extractor(audio))
        found[name] = {
            "embeddings": rounded(output["embedding"]),
            "probabilities": rounded(output["clipwise_output"]),
            "mel": rounded(mel[0, 0, ::25, ::9]),
        }


def vggish(found: dict) -> None:
    stand_in("torchvggish_files")
    network = file_of("torchvggish", "torchvggish.py", "torchvggish_files.torchvggish")
    file_of("torchvggish", "mel_features.py", "torchvggish_files.mel_features")
    file_of("torchvggish", "vggish_params.py", "torchvggish_files.vggish_params")
    stand_in("resampy")
    examples = file_of("torchvggish", "vggish_input.py", "torchvggish_files.vggish_input")
    vgg = network.VGG(network.make_layers(), postprocess=False)
    found["shapes"]["vggish"] = shapes(vgg)
    before, channels = 1, iter(CHANNELS)
    for i, layer in enumerate(vgg.features):
        if isinstance(layer, nn.Conv2d):
            after = next(channels)
            vgg.features[i] = nn.Conv2d(before, after, 3, padding=1)
            before = after
    vgg.embeddings = nn.Sequential(
        nn.Linear(before * 24, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, WIDTH),
    )  # without the last ReLU, as av-benchmark
    vgg.load_state_dict(by_formula(vgg.state_dict()))
    audio = sounds(2.5, 16000)
    inputs = [examples.waveform_to_examples(sound.double().numpy(), 16000) for sound in audio]
    found["vggish"] = {
        "embeddings": rounded(torch.stack([vgg(x) for x in inputs])),
        "mel": rounded(inputs[0][:, 0, ::19, ::9]),
    }


def passt(found: dict) -> None:
    masks = SimpleNamespace(
        FrequencyMasking=lambda *a, **k: nn.Identity(), TimeMasking=lambda *a, **k: nn.Identity()
    )
    stand_in("torchaudio_files", transforms=masks, compliance=stand_in("torchaudio_files.compliance"))
    real = find_spec("torchaudio").submodule_search_locations
    sys.modules["torchaudio"] = sys.modules["torchaudio_files"]
    kaldi = spec_from_file_location("torchaudio.compliance.kaldi", Path(real[0]) / "compliance" / "kaldi.py")
    module = module_from_spec(kaldi)
    kaldi.loader.exec_module(module)
    sys.modules["torchaudio"].compliance.kaldi = module
    with contextlib.redirect_stdout(io.StringIO()):
        from hear21passt.models.passt import PaSST, get_model
        from hear21passt.models.preprocess import AugmentMelSTFT
        from hear21passt.wrapper import PasstBasicWrapper

        found["shapes"]["passt"] = shapes(get_model("passt_s_swa_p16_128_ap476", pretrained=False))
        mel = AugmentMelSTFT(
            n_mels=128, sr=32000, win_length=800, hopsize=320, n_fft=1024, freqm=48, timem=192, htk=False,
            fmin=0.0, fmax=None, norm=1, fmin_aug_range=10, fmax_aug_range=2000,
        )  # fmt: skip
        network = PaSST(
            stride=10,
            num_classes=CLASSES,
            embed_dim=CHANNELS[-1],
            depth=DEPTH,
            num_heads=HEADS,
            distilled=True,
        )
        network.load_state_dict(by_formula(network.state_dict()))
        wrapper = PasstBasicWrapper(mel=mel, net=network, mode="all").eval()
        audio = nn.functional.pad(sounds(8.0, 32000), (0, 64000))  # av-benchmark fills up to 10 s
        output = wrapper(audio)
        spectrum = mel(audio)
    found["passt"] = {
        "logits": rounded(output[:, :CLASSES]),
        "embeddings": rounded(output[:, CLASSES:]),
        "mel": rounded(spectrum[0, ::13, ::97]),
    }


def scores(found: dict) -> None:
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torchmetrics.functional import kl_divergence
    from torchmetrics.image.fid import _compute_fid

    for dims in (6, 90):  # 60 rows: more, and fewer, than dimensions
        a, b = (torch.tensor(x) for x in embeddings(dims))
        means, covariances = (a.mean(0), b.mean(0)), (a.T.cov(), b.T.cov())
        fidelity = fid_statistics_to_metric(
            *({"mu": m.numpy(), "sigma": c.numpy()} for m, c in zip(means, covariances, strict=True)), False
        )
        found[f"scores_{dims}"] = {
            "fid_torchmetrics": float(_compute_fid(means[0], covariances[0], means[1], covariances[1])),
            "fid_torch_fidelity": fidelity["frechet_inception_distance"],
            "isc_torch_fidelity": isc_features_to_metric(a)["inception_score_mean"],
            "kl_torchmetrics": float(kl_divergence(a.log_softmax(1), b.log_softmax(1), log_prob=True)),
        }


def main() -> None:
    found: dict = {"shapes": {}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for write in (scores, panns, vggish, passt):  # the last has a torchaudio of its own
            write(found)
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
