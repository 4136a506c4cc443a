"""The end of a training on the Hub, and what stops a training that could not end there."""

import http.server
import json
import threading

import huggingface_hub
import pytest
from huggingface_hub import constants

from visaudio import hub
from visaudio.cli.train import main
from visaudio.training import full_run
from visaudio.training.recipe import load_train_config

TOKEN = "hf_secret_of_the_test"


@pytest.fixture
def who(monkeypatch):
    """A Hub on loopback that says who a token is of; another token is refused."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}" and self.path == "/api/whoami-v2"
            body = {"name": "ann", "orgs": [{"name": "lab"}]} if known else {"error": "Invalid"}
            data = json.dumps(body).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    plain = huggingface_hub.HfApi
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: plain(endpoint=url))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield url
    server.shutdown()
    server.server_close()
    thread.join()


def run(tmp_path, *overrides):
    return main([f"output={tmp_path / 'run'}", "--stages", "data,export", *overrides])


@pytest.fixture
def no_training(monkeypatch):
    """The stages of a run that takes no time: what they are asked for."""
    done = []
    monkeypatch.setattr(full_run.FullRun, "data", lambda self, folder: done.append("data") or True)
    monkeypatch.setattr("visaudio.training.stages.Plan.check", lambda *_: None)
    monkeypatch.setattr(full_run.FullRun, "parts", lambda self: (None, None, None))
    monkeypatch.setattr(full_run.FullRun, "network", lambda self: None)
    monkeypatch.setattr(full_run.FullRun, "info", lambda self: hub.ModelInfo())
    monkeypatch.setattr(hub, "save_pretrained", lambda *a, **k: done.append("saved"))
    monkeypatch.setattr(
        hub, "push_to_hub", lambda folder, *a, **k: done.append((folder.name, a, k)) or "https://hub/commit/1"
    )
    return done


@pytest.mark.parametrize("repository", ["ann/model", "lab/model"])
def test_the_exported_model_is_pushed_as_configured(who, no_training, tmp_path, capsys, repository):
    settings = [f"hub.repository={repository}", "hub.private=true", "hub.revision=dev"]
    assert run(tmp_path, *settings) == 0
    asked = {"repository": repository, "private": True, "revision": "dev"}
    assert no_training == ["data", "saved", ("model", (), asked)]
    said = capsys.readouterr().err
    assert "pushed: https://hub/commit/1" in said and TOKEN not in said
    kept = (tmp_path / "run" / "config.json").read_text()
    assert json.loads(kept)["hub"]["repository"] == repository and TOKEN not in kept


@pytest.mark.parametrize(
    ("token", "repository", "message"),
    [
        ("hf_other", "ann/model", "the Hub does not know the token (status 401); run `hf auth login`"),
        (TOKEN, "ben/model", "but ann is logged in, who may write to ann, lab"),
    ],
)
def test_who_may_not_push_is_told_before_training(
    who, no_training, tmp_path, capsys, monkeypatch, token, repository, message
):
    monkeypatch.setenv("HF_TOKEN", token)
    assert run(tmp_path, f"hub.repository={repository}") == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and token not in said and no_training == []


def test_nobody_logged_in_no_hub_and_offline_are_told_before_training(
    who, no_training, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.hf_api.get_token", lambda: None)
    monkeypatch.delenv("HF_TOKEN")
    assert run(tmp_path, "hub.repository=ann/model") == 2
    assert "nobody is logged in; run `hf auth login`" in capsys.readouterr().err
    from huggingface_hub.hf_api import HfApi as plain

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: plain(endpoint="http://127.0.0.1:9", token=TOKEN))
    assert run(tmp_path, "hub.repository=ann/model") == 2
    said = capsys.readouterr().err
    assert "the Hub cannot be reached" in said and "visaudio.hub push" in said and said.count("\n") == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert run(tmp_path, "hub.repository=ann/model") == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    assert no_training == []


def test_without_an_export_nobody_is_asked(no_training, tmp_path):
    assert main([f"output={tmp_path / 'run'}", "--stages", "data", "hub.repository=ann/model"]) == 0
    assert main([f"output={tmp_path / 'run'}", "--dry-run", "hub.repository=ann/model"]) == 0
    assert no_training == ["data"]


@pytest.mark.parametrize("overrides", [["hub.repository=model"], ["hub.private=true"]])
def test_a_repository_without_an_owner_is_one_line(tmp_path, capsys, overrides):
    assert run(tmp_path, *overrides) == 2
    assert "expected owner/name on the Hub" in capsys.readouterr().err


def test_nothing_is_pushed_by_default():
    assert load_train_config().hub is None
