"""Files at an address: fetched once, checked, and one line where they cannot be had."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants

from bi_audio_dataset.schema import UserError
from visaudio import url_files, weight_files

CONTENT = b"weights " * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if "none" in self.path:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: 100 if "short" in self.path else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server on loopback, with a cache of its own; the network is allowed."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def left_over(tmp_path) -> list[str]:
    return [path.name for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_is_downloaded_once_and_kept_under_its_name(server, tmp_path):
    url = f"{server.url}/a/Cnn14_16k_mAP%3D0.438.pth?download=1#sha256={DIGEST}"
    path = weight_files.fetch(url)
    assert path.read_bytes() == CONTENT
    assert path == tmp_path / "hub" / "checkpoints" / "Cnn14_16k_mAP=0.438.pth"
    assert weight_files.fetch(url) == path
    assert server.asked == ["/a/Cnn14_16k_mAP%3D0.438.pth?download=1"]
    assert left_over(tmp_path) == ["Cnn14_16k_mAP=0.438.pth"]


def test_another_file_is_refused_and_not_kept(server, tmp_path):
    with pytest.raises(UserError, match="is not the published file") as caught:
        url_files.fetch(f"{server.url}/w.pth#sha256={'0' * 64}", "VGGish")
    assert "VGGish" in str(caught.value) and "\n" not in str(caught.value)
    assert left_over(tmp_path) == []
    path = url_files.fetch(f"{server.url}/w.pth")
    with pytest.raises(UserError, match="delete it, or give the path"):
        url_files.fetch(f"{server.url}/w.pth#sha256={'0' * 64}")
    assert path.exists()


@pytest.mark.parametrize(("name", "says"), [("none.pth", "404"), ("short.pth", "100 of 8000 bytes")])
def test_what_does_not_come_is_one_line(server, tmp_path, name, says):
    with pytest.raises(UserError, match=says) as caught:
        url_files.fetch(f"{server.url}/{name}", "PaSST")
    assert str(caught.value).endswith("or give its path") and "\n" not in str(caught.value)
    assert left_over(tmp_path) == []


def test_nobody_listens(server, tmp_path):
    with pytest.raises(UserError, match="could not be downloaded"):
        url_files.fetch("http://127.0.0.1:9/w.pth")


def test_offline_what_is_cached_serves_and_nothing_is_asked(server, monkeypatch):
    url = f"{server.url}/w.pth#sha256={DIGEST}"
    path = url_files.fetch(url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert url_files.fetch(url) == path and len(server.asked) == 1
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids"):
        url_files.fetch(f"{server.url}/other.pth")
    assert len(server.asked) == 1


def test_the_cache_is_torchs(server, tmp_path):
    assert url_files.cached_path(server.url + "/w.pth").is_relative_to(torch.hub.get_dir())
