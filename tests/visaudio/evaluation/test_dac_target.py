"""The comparison of targets from dataset to table, on a DAC and flows that have seen next to nothing."""

import json
from pathlib import Path

import pytest
import torch
from scripts import load_script

from visaudio import hub
from visaudio.data.features import extract_features
from visaudio.data.parts import Parts
from visaudio.evaluation import classifier as classifiers
from visaudio.sequence import SequenceConfig

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "dac_target.py"
CONFIG = """
preset: tiny
model:
  sequence: {duration_s: 2.0}
  codec: {type: DacCodecConfig, sample_rate: 22050, strides: [8, 8, 8], encoder_width: 4, decoder_width: 16,
          num_codebooks: 2, codebook_size: 16, codebook_dim: 4, pca_dims: 8}
  network: {token_dim: 16, hidden_dim: 64, num_heads: 1, joint_blocks: 1, branch_blocks: 1}
codec: {batch_size: 2, crop_s: [0.2, 0.2], validation_clips: 1, loop: {steps: 2, precision: fp32}}
flow: {validation: {loss_clips: 1}}
"""


@pytest.mark.slow
def test_from_dataset_to_table_and_again(fake_biaudio, tmp_path, capsys):
    tiny = hub.load_pretrained("tiny")
    sequence = SequenceConfig(duration_s=2.0, sample_rate=22050, latent_hop=512, frames_per_token=2)
    parts = Parts(tiny.codec, tiny.clip, tiny.synchformer, sequence)
    extract_features(fake_biaudio, tmp_path / "features", parts, workers=0, progress=False)
    torch.manual_seed(0)
    classifiers.save(classifiers.SoundClassifier(["bell", "drum"]), tmp_path / "classifier.safetensors")
    (tmp_path / "config.yaml").write_text(CONFIG)
    results = tmp_path / "results.md"
    script = load_script(SCRIPT)
    results.write_text(f"before\n{script.MARKS[0]}\nold\n{script.MARKS[1]}\nafter\n")
    arguments = [
        "--dataset", fake_biaudio, "--features", tmp_path / "features", "--output", tmp_path / "out",
        "--config", tmp_path / "config.yaml", "--codec-minutes", "1", "--flow-steps", "2",
        "--batch-size", "2",
        "--train-clips", "3", "--clips", "1", "--classifier", tmp_path / "classifier.safetensors",
        "--write-to", results,
    ]  # fmt: skip
    arguments = list(map(str, arguments))
    assert script.main(arguments) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["clips"] == 1 and 0 < report["pca"]["kept"] <= 1 and report["made"]["codec_steps"] == 2
    assert report["sampled"]["projected"]["mel_truth"] != report["sampled"]["continuous"]["mel_truth"]
    text = results.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert f"| flow: {'PCA of the continuous ones'} |" in text
    # nothing is made twice
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "latents").iterdir()}
    assert script.main(arguments) == 0
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "latents").iterdir()}
    again = json.loads((tmp_path / "out" / "report.json").read_text())
    assert json.dumps(again["sampled"]) == json.dumps(report["sampled"])  # as text: nan is not nan
