import json
import os
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from micro import micro_components, micro_preset
from safetensors.torch import load_file

from bi_audio_dataset.schema import UserError
from visaudio import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def components():
    made = micro_components(seed=1, cfg_strength=3.5)
    made.info = hub.ModelInfo("cc-by-nc-4.0", "made in a test", "knows nothing", {"steps": 7, "loss": 0.125})
    return made


@pytest.fixture(scope="module")
def folder(components, tmp_path_factory):
    return hub.save_pretrained(tmp_path_factory.mktemp("model") / "micro", components)


def weights(components):
    return {f"{p}.{k}": v for p in hub.PARTS for k, v in getattr(components, p).state_dict().items()}


def copied(folder, to):
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_saved_and_loaded_is_the_same_model(components, folder):
    loaded = hub.load_pretrained(folder)
    assert loaded.preset == micro_preset()
    assert loaded.sampling == components.sampling and loaded.sampling.cfg_strength == 3.5
    assert loaded.info == components.info
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.safetensors")} == {0o644}
    expected = weights(components)
    found = weights(loaded)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(m.training for p in hub.PARTS for m in getattr(loaded, p).modules())


def test_half_precision_is_on_disk_alone(components, folder, tmp_path):
    half = hub.save_pretrained(tmp_path / "half", components, "float16")
    stored = load_file(half / "network.safetensors")
    assert {v.dtype for v in stored.values() if v.ndim > 1} == {torch.float16}
    assert {v.dtype for v in stored.values() if v.ndim == 1} == {torch.float32}
    found, expected = weights(hub.load_pretrained(half)), weights(components)
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


def test_each_part_can_come_from_elsewhere(components, folder, tmp_path):
    other = micro_components(seed=2)
    other_folder = hub.save_pretrained(tmp_path / "other", other)
    mixed = hub.load_pretrained(
        folder, overrides={"clip": other_folder, "network": other_folder / "network.safetensors"}
    )
    ours, theirs = weights(components), weights(other)
    differing = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    for name in differing:
        expected = theirs if name.split(".")[0] in ("clip", "network") else ours
        assert torch.equal(weights(mixed)[name], expected[name]), name
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
    broken = copied(folder, tmp_path / "broken")
    (broken / "clip.safetensors").write_bytes(b"not weights")
    forget_checksums(broken)  # as in a folder of an earlier version
    with pytest.raises(UserError, match="clip.safetensors: cannot be read as safetensors"):
        hub.load_pretrained(broken)


def forget_checksums(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]
    (folder / "config.json").write_text(json.dumps(config))


def test_parts_are_held_against_their_checksums(components, folder, tmp_path):
    changed = copied(folder, tmp_path / "changed")
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format_version=99), "format 99, this program reads 1"),
        (lambda c: c["preset"]["network"].update(hiden_dim=16), "hiden_dim.*did you mean hidden_dim"),
        (lambda c: c["preset"]["network"].update(sync_dim=17), "must be equal"),
        (lambda c: c["sampling"].update(method="eular"), "euler"),
    ],
)
def test_a_wrong_config_is_one_clear_line(folder, tmp_path, change, message):
    bad = copied(folder, tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text())
    change(config)
    (bad / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message) as caught:
        hub.load_pretrained(bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_model", "a/b/c", "", "/no/such/folder"])
def test_names_that_mean_nothing_are_refused(name):
    with pytest.raises(UserError, match="no model .*expected a folder, a packaged name|holds no config.json"):
        hub.find_model(name)


def test_the_card_states_licence_limits_and_training(folder):
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-nc-4.0\n")
    for line in ("knows nothing", "made in a test", "- steps: 7", "- loss: 0.125", "4000 Hz"):
        assert line in card


# -------------------- the Hub, as a small server on loopback

SCRIPT = """
import sys
from bi_audio_dataset.schema import UserError
from visaudio import hub
for asked in sys.argv[1:]:
    try:
        print(hub.find_model(*asked.split("@")))
    except UserError as error:
        print("UserError:", error)
"""


class HubHandler(BaseHTTPRequestHandler):
    """What snapshot_download asks of a repository org/micro with one commit."""

    folder: Path

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:4] == ["api", "models", "org", "micro"] and parts[-1] in ("micro", "main", COMMIT):
            files = sorted(self.folder.iterdir())
            answer = {"id": "org/micro", "sha": COMMIT, "siblings": [{"rfilename": f.name} for f in files]}
            if "tree" in parts:
                sizes = [(f.name, f.stat().st_size) for f in files]
                answer = [{"type": "file", "path": n, "size": s, "oid": f"{n}-{s}"} for n, s in sizes]
            self.reply(json.dumps(answer).encode())
        elif parts[:3] == ["org", "micro", "resolve"] and (self.folder / parts[-1]).is_file():
            self.reply((self.folder / parts[-1]).read_bytes(), parts[-1])
        else:
            known = parts[:4] == ["api", "models", "org", "micro"]
            code = "RevisionNotFound" if known else "RepoNotFound"
            self.reply(b"{}", status=404, extra={"X-Error-Code": code})

    def reply(self, body, etag="json", status=200, extra=None):
        self.send_response(status)
        headers = {"Content-Length": len(body), "ETag": f'"{etag}-{len(body)}"', "X-Repo-Commit": COMMIT}
        for name, value in {**headers, **(extra or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.mark.slow
def test_a_hub_repository_is_fetched_once_then_read_offline(folder, tmp_path):
    handler = type("Handler", (HubHandler,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }

    def ask(*names):
        command = [sys.executable, "-c", SCRIPT, *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip().splitlines()

    try:
        fetched, missing, no_revision = ask("org/micro", "org/none", "org/micro@v9")
    finally:
        server.shutdown()
        server.server_close()
    assert Path(fetched).name == COMMIT
    for name in ("config.json", "network.safetensors", "clip.safetensors"):
        assert (Path(fetched) / name).read_bytes() == (folder / name).read_bytes()
    assert missing.startswith("UserError: no folder and no Hub repository 'org/none'")
    assert "revision 'v9' cannot be fetched" in no_revision
    cached, unknown = ask("org/micro", "org/none")  # the server is gone
    assert cached == fetched
    assert "the Hub cannot be reached" in unknown


def test_push_sends_the_model_files_alone(folder, monkeypatch):
    import huggingface_hub

    calls = {}

    class Api:
        def create_repo(self, repository, private, exist_ok):
            calls["repo"] = (repository, private, exist_ok)

        def upload_folder(self, **options):
            calls["upload"] = options
            return type("Commit", (), {"commit_url": "https://hub/org/micro/commit/1"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert hub.push_to_hub(folder, "org/micro", private=True) == "https://hub/org/micro/commit/1"
    assert calls["repo"] == ("org/micro", True, True)
    assert set(calls["upload"]["allow_patterns"]) == {p.name for p in folder.iterdir()}
    monkeypatch.setattr(
        Api, "create_repo", lambda *a, **k: (_ for _ in ()).throw(OSError("no network\nhere"))
    )
    with pytest.raises(UserError, match="cannot push to 'org/micro': no network here"):
        hub.push_to_hub(folder, "org/micro")
