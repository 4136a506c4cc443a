"""Weights are found, and read without running what stands in them."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from bi_audio_dataset.schema import UserError
from visaudio import weight_files

STATE = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


@pytest.mark.parametrize("wrapped", [STATE, {"state_dict": STATE}, {"model": STATE}, {"generator": STATE}])
def test_tensors_come_out_of_their_wrappers(tmp_path, wrapped):
    torch.save(wrapped, tmp_path / "w.pth")
    found = weight_files.read_state(tmp_path / "w.pth")
    assert found.keys() == STATE.keys() and torch.equal(found["a.weight"], STATE["a.weight"])


def test_names_of_data_parallel_runs(tmp_path):
    torch.save({f"module.{name}": value for name, value in STATE.items()}, tmp_path / "w.pt")
    assert weight_files.read_state(tmp_path / "w.pt").keys() == STATE.keys()


class Code:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": Code()}))
    with pytest.raises(UserError, match="cannot be read as weights of a model"):
        weight_files.read_state(tmp_path / "w.pth")
    torch.save({"a": Code()}, tmp_path / "zip.pth")
    with pytest.raises(UserError, match="cannot be read as weights of a model"):
        weight_files.read_state(tmp_path / "zip.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_cut_files_are_one_line(tmp_path, suffix):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    save_file(STATE, whole) if suffix == ".safetensors" else torch.save(STATE, whole)
    cut.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(UserError, match="cut.* damaged, cut short") as caught:
        weight_files.read_state(cut)
    assert "\n" not in str(caught.value)


def test_what_is_no_state_dict_is_refused(tmp_path):
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(UserError, match="holds a Tensor, expected the tensors"):
        weight_files.read_state(tmp_path / "tensor.pt")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"is not the tensors of .* by name \(found \['epoch'\]\)"):
        weight_files.read_state(tmp_path / "other.pt")


def test_sources_on_the_hub(tmp_path, monkeypatch):
    torch.save(STATE, tmp_path / "w.pth")
    asked = []

    def download(repository, file, revision=None, **_):
        asked.append((repository, file, revision))
        return str(tmp_path / "w.pth")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    weight_files.read_state("owner/name:folder/w.pth")
    weight_files.read_state("owner/na.me@refs/pr/1:w.pth")
    assert asked == [("owner/name", "folder/w.pth", None), ("owner/na.me", "w.pth", "refs/pr/1")]


def test_offline_without_a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="not in the local cache, and the Hub cannot be reached"):
        weight_files.fetch("owner/name-that-is-not-cached:w.pth", "the VAE")
    with pytest.raises(UserError, match="no weights of a model at nowhere.pth"):
        weight_files.fetch("nowhere.pth")


def test_weights_of_something_else():
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2)})
    weight_files.load_into(module, STATE, "w.pth", "it")
    assert torch.equal(module["a"].weight, STATE["a.weight"])
    with pytest.raises(UserError, match=r"w.pth: not the weights of it: missing \['a.bias'\]"):
        weight_files.load_into(module, {"a.weight": torch.ones(2, 3)}, "w.pth", "it")
