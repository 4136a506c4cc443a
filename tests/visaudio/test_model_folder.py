"""Model folders: what is written, what is read, what is refused."""

import json
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from micro import micro_components, weights_of
from safetensors.torch import load_file, save_file

from bi_audio_dataset.schema import UserError
from visaudio import hub, model_folder, part_files


def reference(**changes):
    """One entry of config.json's references."""
    plain = {"field": "weights", "repository": "a/b", "revision": "0" * 40, "files": {"w.pth": "0" * 64}}
    return {**plain, **changes}


@pytest.fixture(scope="module")
def components():
    return micro_components(seed=1)


@pytest.fixture(scope="module")
def folder(components, tmp_path_factory):
    return hub.save_pretrained(tmp_path_factory.mktemp("model") / "micro", components)


@pytest.fixture(scope="module")
def sharded(components, tmp_path_factory):
    return hub.save_pretrained(tmp_path_factory.mktemp("model") / "s", components, max_shard_size=100_000)


def test_half_precision_is_on_disk_alone(components, folder, tmp_path):
    half = hub.save_pretrained(tmp_path / "half", components, "float16")
    stored = load_file(half / "network.safetensors")
    assert {v.dtype for v in stored.values() if v.ndim > 1} == {torch.float16}
    assert {v.dtype for v in stored.values() if v.ndim == 1} == {torch.float32}
    found, expected = weights_of(hub.load_pretrained(half)), weights_of(components)
    for name, value in found.items():
        assert value.dtype == expected[name].dtype
        assert torch.allclose(value, expected[name], rtol=2**-11, atol=2**-24), name
    sizes = [sum(f.stat().st_size for f in p.glob("*.safetensors")) for p in (folder, half)]
    assert sizes[1] < 0.75 * sizes[0]


def test_a_weight_beyond_half_precision_is_refused_and_the_old_folder_stays(components, tmp_path):
    target = hub.save_pretrained(tmp_path / "m", components)
    before = (target / "network.safetensors").read_bytes()
    loud = hub.load_pretrained(target)
    loud.network.final_layer.conv.weight.data[0] = 1e6
    with pytest.raises(ValueError, match="final_layer.conv.weight does not fit half precision"):
        hub.save_pretrained(target, loud, torch.float16)
    assert (target / "network.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    hub.save_pretrained(target, loud)  # full precision holds it; the folder is replaced as a whole
    assert (target / "network.safetensors").read_bytes() != before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_folder_of_other_things_is_not_replaced(components, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="is not a model folder and not empty"):
        hub.save_pretrained(tmp_path / "photos", components)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format_version=99), "a model of format 99, this program reads 1 and 2; use the"),
        (lambda c: c.update(format_version=0), "a model of format 0, this program reads 1 and 2"),
        (lambda c: c.pop("format_version"), "a model of format None"),
        (lambda c: c.update(sha256=["x"]), "references or checksums are of another form"),
        (lambda c: c.update(references={"ears": []}), "references 'ears'; a model has codec, clip"),
        (lambda c: c.update(references={"clip": [reference(revision="main")]}), "is no reference: expected"),
        (lambda c: c.update(references={"clip": [reference(files={"../x": "0" * 64})]}), "is no reference"),
        (lambda c: c.update(references={"codec": [reference()]}), "references.codec: its config has no weig"),
        (lambda c: c.update(references={"clip": [reference(size=3)]}), "unknown key"),
        (lambda c: c["preset"]["network"].update(hiden_dim=16), "hiden_dim.*did you mean hidden_dim"),
        (lambda c: c["preset"]["network"].update(sync_dim=17), "must be equal"),
        (lambda c: c["sampling"].update(method="eular"), "euler"),
    ],
)
def test_a_wrong_config_is_one_clear_line(folder, tmp_path, change, message):
    bad = shutil.copytree(folder, tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text())
    change(config)
    (bad / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message) as caught:
        hub.load_pretrained(bad)
    assert "\n" not in str(caught.value)


# -------------------- shards


def test_large_parts_become_shards_and_come_back(components, sharded):
    names = sorted(path.name for path in sharded.glob("network*"))
    assert names[-1] == "network.safetensors.index.json" and len(names) == 5
    assert (sharded / "codec.safetensors").is_file()
    sizes = [(sharded / name).stat().st_size for name in names[:-1]]
    assert max(sizes) < 110_000 and sum(sizes) > 300_000
    index = json.loads((sharded / names[-1]).read_text())
    assert index["weight_map"].keys() == components.network.state_dict().keys()
    assert index["metadata"]["total_size"] == sum(
        value.numel() * value.element_size() for value in components.network.state_dict().values()
    )
    sums = json.loads((sharded / "config.json").read_text())["sha256"]
    assert set(names) < set(sums)
    found, expected = weights_of(hub.load_pretrained(sharded)), weights_of(components)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_folder_is_saved_whole_where_it_was_sharded(components, sharded, tmp_path):
    target = shutil.copytree(sharded, tmp_path / "m")
    hub.save_pretrained(target, components)
    assert [path.name for path in target.glob("network*")] == ["network.safetensors"]
    with pytest.raises(UserError, match="max_shard_size is 'five', expected bytes or such as '5GB'"):
        hub.save_pretrained(tmp_path / "n", components, max_shard_size="five")
    assert not (tmp_path / "n").exists()


def test_shards_that_do_not_fit_their_index_are_refused(sharded, tmp_path):
    bad = shutil.copytree(sharded, tmp_path / "bad")
    first, second = (bad / f"network-0000{number}-of-00004.safetensors" for number in (1, 2))
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match="00001-of-00004.safetensors: is not the file that config.json was"):
        hub.load_pretrained(bad)
    with pytest.raises(UserError, match="does not hold the tensors that network.safetensors.index.json says"):
        part_files.read(bad, "network")
    first.unlink()
    with pytest.raises(UserError, match="lacks network-00001-of-00004.safetensors, so it is no whole model"):
        hub.load_pretrained(bad)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is no index of shards"),
        ("[]", "is no index of shards"),
        ('{"weight_map": {}}', "names files that are no shards of network"),
        ('{"weight_map": {"w": "../../secret.safetensors"}}', "names files that are no shards of network"),
        ('{"weight_map": {"w": "codec.safetensors"}}', "names files that are no shards of network"),
        ('{"weight_map": {"w": "network-00001-of-00004.safetensors"}}', "lacks network-00002"),
    ],
)
def test_an_index_from_elsewhere_is_looked_at(sharded, tmp_path, text, message):
    bad = shutil.copytree(sharded, tmp_path / "bad")
    (bad / "network.safetensors.index.json").write_text(text)
    config = json.loads((bad / "config.json").read_text())
    sums = config["sha256"]
    sums["network.safetensors.index.json"] = model_folder.weight_files.sha256(
        bad / "network.safetensors.index.json"
    )
    (bad / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        hub.load_pretrained(bad)


# -------------------- damaged files


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w')",)


def test_code_in_a_file_that_is_called_safetensors_is_not_run(folder, tmp_path):
    evil = tmp_path / "network.safetensors"
    evil.write_bytes(pickle.dumps(Code(tmp_path / "it_ran")))
    with pytest.raises(UserError, match="network.safetensors: cannot be read as safetensors") as caught:
        hub.load_pretrained(folder, overrides={"network": evil})
    assert "\n" not in str(caught.value) and not (tmp_path / "it_ran").exists()


def test_cut_weights_are_one_line(folder, tmp_path):
    cut = tmp_path / "codec.safetensors"
    cut.write_bytes((folder / "codec.safetensors").read_bytes()[:-100])
    with pytest.raises(
        UserError, match="codec.safetensors: cannot be read as safetensors .*cut short"
    ) as caught:
        hub.load_pretrained(folder, overrides={"codec": cut})
    assert "\n" not in str(caught.value)


def test_a_file_beside_the_checksums_is_refused(folder, tmp_path):
    """A shard that config.json does not know, or a part without its checksum, was put there by someone."""
    bad = shutil.copytree(folder, tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text())
    del config["sha256"]["clip.safetensors"]
    (bad / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match="clip.safetensors: is not the file that config.json was written with"
    ):
        hub.load_pretrained(bad)


def test_models_of_the_first_format_are_read(folder, tmp_path):
    old = shutil.copytree(folder, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    for key in ("licence", "parameters", "references", "sha256"):
        del config[key]
    config["format_version"] = 1
    for key in ("datasets", "results"):
        del config["info"][key]
    (old / "config.json").write_text(json.dumps(config))
    assert hub.load_pretrained(old).info.licence == "apache-2.0"
    save_file({"w": torch.zeros(1)}, old / "clip.safetensors")
    with pytest.raises(UserError, match="clip.safetensors: not the weights of this clip"):
        hub.load_pretrained(old)


@pytest.mark.slow
def test_on_the_command_line_each_is_one_line_and_exit_code_2(folder, tmp_path):
    """By the program itself: the model is bad, the film is not."""
    from micro import write_clip

    from visaudio.cli import sample

    film = write_clip(tmp_path / "x.mp4", 0.2)
    bad = {
        name: shutil.copytree(folder, tmp_path / name) for name in ("json", "list", "newer", "cut", "code")
    }
    (bad["json"] / "config.json").write_text("{format_version: 1")
    (bad["list"] / "config.json").write_text("[1]")
    (bad["newer"] / "config.json").write_text('{"format_version": 3}')
    (bad["cut"] / "network.safetensors").write_bytes(b"1234")
    (bad["code"] / "clip.safetensors").write_bytes(pickle.dumps(Code(tmp_path / "it_ran")))
    code = "import sys\nfrom visaudio.cli import sample\nsys.exit(sample.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "--video", str(film), "--variant", str(bad["newer"])],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "a model of format 3, this program reads 1 and 2" in done.stderr
    for model in bad.values():
        assert sample.main(["--video", str(film), "--variant", str(model)]) == 2
    pth = tmp_path / "synchformer.pth"
    pth.write_bytes(pickle.dumps(Code(tmp_path / "it_ran")))
    arguments = ["--video", str(film), "--variant", str(folder), "--weights", f"synchformer={pth}"]
    assert sample.main(arguments) == 2
    assert not (tmp_path / "it_ran").exists() and sorted(p.name for p in tmp_path.glob("x.*")) == ["x.mp4"]
