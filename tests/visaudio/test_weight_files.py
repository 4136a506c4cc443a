"""Weights are found, and read without running what stands in them."""

import logging
import pickle
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bi_audio_dataset.schema import UserError
from visaudio import hub_access, weight_files

STATE = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


@pytest.mark.parametrize("wrapped", [STATE, {"state_dict": STATE}, {"model": STATE}, {"generator": STATE}])
def test_tensors_come_out_of_their_wrappers(tmp_path, wrapped):
    torch.save(wrapped, tmp_path / "w.pth")
    found = weight_files.read_state(tmp_path / "w.pth")
    assert found.keys() == STATE.keys() and torch.equal(found["a.weight"], STATE["a.weight"])


def test_names_of_data_parallel_runs(tmp_path):
    torch.save({f"module.{name}": value for name, value in STATE.items()}, tmp_path / "w.pt")
    assert weight_files.read_state(tmp_path / "w.pt").keys() == STATE.keys()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_integer_arrays_beside_the_tensors_of_panns(tmp_path, zipped, module):
    beside = {
        "iteration": 900_000,
        "sampler": {"indexes": np.arange(5), "queue": [np.arange(3)], "pointer": 2},
    }
    file = tmp_path / "w.pth"
    torch.save({"model": STATE} | beside, file, _use_new_zipfile_serialization=zipped)
    if not zipped:  # as numpy 1 wrote it; in a zip the length would have to fit
        file.write_bytes(file.read_bytes().replace(b"numpy._core.multiarray", module))
    assert weight_files.read_state(file).keys() == STATE.keys()
    assert weight_files.read(file)["sampler"]["indexes"].tolist() == [0, 1, 2, 3, 4]


def test_arrays_of_objects_do_not_smuggle_code(tmp_path):
    torch.save({"model": STATE, "sampler": np.array([Code()], dtype=object)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="more than tensors"):
        weight_files.read_state(tmp_path / "w.pth")


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


@pytest.mark.parametrize(
    ("protocol", "says"),
    [
        (2, "it holds more than tensors"),
        (3, "it holds more"),
        (4, "it may hold more"),
        (5, "it may hold more"),
    ],
)
def test_a_refused_pickle_is_one_line_of_our_own(tmp_path, protocol, says):
    raw, zipped = tmp_path / "raw.pth", tmp_path / "zip.pth"
    raw.write_bytes(pickle.dumps({"a": Code()}, protocol=protocol))
    torch.save({"a": Code()}, zipped, pickle_protocol=protocol)
    for file in (raw, zipped):
        with warnings.catch_warnings(), pytest.raises(UserError, match=says) as caught:
            warnings.simplefilter("error")
            weight_files.read(file)
        said = str(caught.value)
        assert said.endswith("tensors (code that loading would run): refused; convert it to safetensors")
        assert "PyTorch" not in said and "weights_only" not in said and "\n" not in said


def test_what_is_no_pickle_is_not_said_to_hold_code(tmp_path):
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="page.pth: cannot be read .*: it is no file of torch.save") as caught:
        weight_files.read(tmp_path / "page.pth")
    assert "code" not in str(caught.value)


def test_an_error_without_text_is_called_by_its_type(tmp_path):
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot be read as weights of Cnn14 \(EOFError\): is it damaged"):
        weight_files.read(tmp_path / "empty.pth", "Cnn14")


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


@pytest.mark.slow  # a new process imports torch
def test_an_endpoint_that_nobody_listens_at(tmp_path):
    """In a process of its own, as huggingface_hub reads its settings once: one line, soon."""
    from hub_client import HubClient

    client = HubClient("http://127.0.0.1:9", tmp_path)
    code = (
        "from visaudio import weight_files\nasked = []\nimport time\nreal = time.sleep\n"
        "time.sleep = lambda s: asked.append(s)\n"
        "from visaudio.codec.dac import DacCodec, DacCodecConfig\n"
        "said = []\n"
        "for make in (lambda: weight_files.fetch('ann/m:w.pth', 'the VAE'),\n"
        "             lambda: DacCodec(DacCodecConfig(weights='ann/dac'))):\n"
        "    try: make()\n"
        "    except Exception as error: said.append(f'{type(error).__name__} {error}')\n"
        "time.sleep = real\nresult = [said, asked]"
    )
    try:
        answer = client.run(code)
    finally:
        client.close()
    assert answer.error is None and answer.output == "", answer  # no line on retries
    (vae, dac), waits = answer.value
    assert waits == [1, 1]  # a second try for each, and no more
    unreachable = "not in the local cache, and the Hub cannot be reached ([Errno"
    assert vae.startswith(f"UserError weights of the VAE, ann/m:w.pth: {unreachable}")
    assert vae.endswith("with HF_HUB_OFFLINE=1; or give the path of a file you have")
    assert dac.startswith(f"UserError cannot load a DAC from 'ann/dac': config.json: {unreachable}")
    assert dac.endswith("; or give a folder of transformers' or Descript's .pth that you have")
    assert "\n" not in vae + dac


def test_retries_are_unsaid_within_a_fetch_alone(tmp_path, monkeypatch):
    logger = logging.getLogger("huggingface_hub")
    before, seen = logger.level, []

    def download(*_, **__):
        seen.append(logger.level)
        raise OSError("broken")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    for level in (logging.WARNING, logging.DEBUG):  # who asked for more gets more
        logger.setLevel(level)
        try:
            with pytest.raises(UserError, match="it: OSError: broken"):
                hub_access.fetch_file("ann/m", "w.pth", what="it", cache_dir=tmp_path)
            assert logger.level == level
        finally:
            logger.setLevel(before)
    assert seen == [logging.ERROR, logging.DEBUG]


def test_weights_of_something_else():
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2)})
    weight_files.load_into(module, STATE, "w.pth", "it")
    assert torch.equal(module["a"].weight, STATE["a.weight"])
    with pytest.raises(UserError, match=r"w.pth: not the weights of it: missing \['a.bias'\]"):
        weight_files.load_into(module, {"a.weight": torch.ones(2, 3)}, "w.pth", "it")
