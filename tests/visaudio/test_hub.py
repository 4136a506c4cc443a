import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from micro import micro_components, micro_preset, weights_of

from bi_audio_dataset.schema import UserError
from visaudio import hub


@pytest.fixture(scope="module")
def components():
    made = micro_components(seed=1, cfg_strength=3.5)
    made.info = hub.ModelInfo("cc-by-nc-4.0", "made in a test", "knows nothing", {"steps": 7, "loss": 0.125})
    return made


@pytest.fixture(scope="module")
def folder(components, tmp_path_factory):
    return hub.save_pretrained(tmp_path_factory.mktemp("model") / "micro", components)


def test_saved_and_loaded_is_the_same_model(components, folder):
    loaded = hub.load_pretrained(folder)
    assert loaded.preset == micro_preset()
    assert loaded.sampling == components.sampling and loaded.sampling.cfg_strength == 3.5
    assert loaded.info == components.info
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.safetensors")} == {0o644}
    expected = weights_of(components)
    found = weights_of(loaded)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(m.training for p in hub.PARTS for m in getattr(loaded, p).modules())


def test_each_part_can_come_from_elsewhere(components, folder, tmp_path):
    other = micro_components(seed=2)
    other_folder = hub.save_pretrained(tmp_path / "other", other)
    mixed = hub.load_pretrained(
        folder, overrides={"clip": other_folder, "network": other_folder / "network.safetensors"}
    )
    ours, theirs = weights_of(components), weights_of(other)
    differing = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    for name in differing:
        expected = theirs if name.split(".")[0] in ("clip", "network") else ours
        assert torch.equal(weights_of(mixed)[name], expected[name]), name
    assert {name.split(".")[0] for name in differing} == set(hub.PARTS)


def test_a_part_that_does_not_fit_is_named(folder, tmp_path):
    wide = replace(micro_preset(), codec=replace(micro_preset().codec, decoder_width=16))
    other = hub.save_pretrained(tmp_path / "wide", hub.build_components(wide))
    hub.load_pretrained(folder, overrides={"codec": other})  # with its own sizes it fits
    with pytest.raises(UserError, match="codec.safetensors: not the weights of this codec.*other shapes"):
        hub.load_pretrained(folder, overrides={"codec": other / "codec.safetensors"})
    with pytest.raises(UserError, match="unknown part 'vocoder'; a model has codec, clip"):
        hub.load_pretrained(folder, overrides={"vocoder": other})
    start = micro_preset()
    deep = replace(
        start,
        codec=replace(start.codec, latent_dim=8),
        network=replace(start.network, token_dim=16),
    )
    deep_folder = hub.save_pretrained(tmp_path / "deep", hub.build_components(deep))
    with pytest.raises(UserError, match="the codec of .* does not fit"):
        hub.load_pretrained(folder, overrides={"codec": deep_folder})


def test_only_safetensors_are_read(folder, tmp_path):
    bad = tmp_path / "network.bin"
    bad.write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(UserError, match="only .safetensors"):
        hub.load_pretrained(folder, overrides={"network": bad})
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "clip.safetensors").write_bytes(b"not weights")
    forget_checksums(broken)  # as in a folder of an earlier version
    with pytest.raises(UserError, match="clip.safetensors: cannot be read as safetensors"):
        hub.load_pretrained(broken)


def forget_checksums(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]
    (folder / "config.json").write_text(json.dumps(config))


def test_parts_are_held_against_their_checksums(components, folder, tmp_path):
    changed = shutil.copytree(folder, tmp_path / "changed")
    other = hub.save_pretrained(tmp_path / "other", micro_components(seed=2))
    (changed / "codec.safetensors").write_bytes((other / "codec.safetensors").read_bytes())
    with pytest.raises(UserError, match="codec.safetensors: is not the file that config.json was written"):
        hub.load_pretrained(changed)
    with pytest.raises(UserError, match="is not the file that config.json was written"):
        hub.push_to_hub(changed, "org/micro")
    loaded = hub.load_pretrained(
        folder, overrides={"codec": other / "codec.safetensors"}
    )  # knowingly another
    assert not torch.equal(*(next(c.codec.parameters()) for c in (loaded, components)))
    forget_checksums(changed)
    hub.load_pretrained(changed)
    (changed / "clip.safetensors").unlink()
    for use in (hub.load_pretrained, lambda path: hub.push_to_hub(path, "org/micro")):
        with pytest.raises(UserError, match="lacks clip.safetensors, so it is no whole model"):
            use(changed)


def test_push_by_the_command_line(folder, tmp_path, monkeypatch, capsys):
    asked = []

    def push(*arguments, **options):
        asked.append((arguments, options))
        return "https://hub/org/micro/commit/1"

    monkeypatch.setattr(hub, "push_to_hub", push)
    command = ["push", str(folder), "org/micro", "--private", "--revision", "dev", "--message", "first"]
    assert hub.main(command) == 0
    assert capsys.readouterr().out == "https://hub/org/micro/commit/1\n"
    assert asked == [((folder, "org/micro"), {"private": True, "revision": "dev", "message": "first"})]
    monkeypatch.undo()
    assert hub.main(["push", str(tmp_path / "none"), "org/micro"]) == 2
    assert capsys.readouterr().err.startswith("error: no model")


@pytest.mark.parametrize("name", ["no_such_model", "a/b/c", "", "/no/such/folder"])
def test_names_that_mean_nothing_are_refused(name):
    with pytest.raises(UserError, match="no model .*expected a folder, a packaged name|holds no config.json"):
        hub.find_model(name)


def test_a_licence_comes_along_with_a_part(folder, tmp_path):
    other = micro_components(seed=2)
    other.info = hub.ModelInfo("apple-amlr")
    other_folder = hub.save_pretrained(tmp_path / "other", other)
    mixed = hub.load_pretrained(folder, overrides={"clip": other_folder})
    assert mixed.info.licence == "apple-amlr AND cc-by-nc-4.0" and mixed.info.limits == "knows nothing"
    assert hub.load_pretrained(folder, overrides={"clip": folder}).info.licence == "cc-by-nc-4.0"


def test_a_revision_is_for_the_hub(folder):
    with pytest.raises(UserError, match=r"revision \('v2'\) is for a Hub repository"):
        hub.load_pretrained(folder, revision="v2")
    with pytest.raises(UserError, match="is for a Hub repository"):
        hub.find_model("tiny", "main")


@pytest.mark.slow
def test_the_short_name_costs_no_torch():
    code = (
        "import sys, visaudio\n"
        "assert 'torch' not in sys.modules and 'ViSAudio' in dir(visaudio)\n"
        "from visaudio import ViSAudio\n"
        "from visaudio.pipeline import ViSAudioPipeline\n"
        "assert ViSAudio is ViSAudioPipeline\n"
        "try: visaudio.nothing\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "module 'visaudio' has no attribute 'nothing'\n", done.stderr[-2000:]
