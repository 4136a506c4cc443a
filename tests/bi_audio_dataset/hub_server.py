"""A Hub of one dataset repository on loopback, as far as huggingface_hub's HfFileSystem speaks to one:
repository and branch, tree, paths-info, resolve with ranges, commits that add and delete.

It asks for each file inside the commit, as the Hub does for small ones; the transfer of large ones (LFS, Xet)
is not imitated. A commit that deletes what is not there is refused as a whole."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0" * 40


class HubServer:
    """files: path -> content of branch main; commits: what each one did. Other tokens are refused."""

    def __init__(self, repo: str, token: str = "hf_x") -> None:
        self.repo, self.token = repo, token
        self.files: dict[str, bytes] = {}
        self.commits: list[list[tuple[str, str]]] = []
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def entry(self, path: str) -> dict:
        content = self.files[path]
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return {"type": "file", "path": path, "size": len(content), "oid": oid}

    def tree(self, folder: str) -> list[dict] | None:
        """What lies in a folder; None if there is none such."""
        below = f"{folder}/" if folder else ""
        inside = [path for path in self.files if path.startswith(below)]
        if folder and not inside:
            return None
        names = sorted({path.removeprefix(below).split("/")[0] for path in inside})
        return [
            self.entry(below + name)
            if below + name in self.files
            else {"type": "directory", "path": below + name, "oid": COMMIT, "size": 0}
            for name in names
        ]

    def commit(self, lines: list[dict]) -> str | None:
        """None, or what is wrong with it; then nothing is done."""
        done = [(line["key"], line["value"]["path"]) for line in lines if line["key"] != "header"]
        for key, path in done:
            if key not in ("file", "deletedFile"):
                return f"not imitated: {key}"
            if key == "deletedFile" and path not in self.files:
                return f"file to delete does not exist: {path}"
        for line in lines:
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del self.files[line["value"]["path"]]
        self.commits.append(done)
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(self.path.partition("?")[0])
        api, files = f"/api/datasets/{hub.repo}", f"/datasets/{hub.repo}/resolve/main/"
        if not self._allowed():
            return
        with hub.lock:
            if path in (api, f"{api}/revision/main"):
                self._json({"id": hub.repo, "sha": COMMIT, "private": True, "siblings": [], "tags": []})
            elif path == f"{api}/tree/main" or path.startswith(f"{api}/tree/main/"):
                found = hub.tree(path.removeprefix(f"{api}/tree/main").strip("/"))
                self._json(found) if found is not None else self._fail(404, "EntryNotFound")
            elif path.startswith(files) and path.removeprefix(files) in hub.files:
                self._content(hub.files[path.removeprefix(files)])
            else:
                self._fail(404, "EntryNotFound" if path.startswith(files) else "RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        hub, path = self.hub, unquote(self.path.partition("?")[0])
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        api = f"/api/datasets/{hub.repo}"
        if not self._allowed():
            return
        with hub.lock:
            if path == f"{api}/preupload/main":
                names = [file["path"] for file in json.loads(body)["files"]]
                self._json(
                    {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
                )
            elif path == f"{api}/commit/main":
                wrong = hub.commit([json.loads(line) for line in body.splitlines() if line])
                url = f"{hub.url}/datasets/{hub.repo}/commit/{COMMIT}"
                self._fail(400, "", wrong) if wrong else self._json({"commitUrl": url, "commitOid": COMMIT})
            elif path == f"{api}/paths-info/main":
                asked = json.loads(body)["paths"]
                self._json([hub.entry(name) for name in asked if name in hub.files])
            else:
                self._fail(404, "RepoNotFound")

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            return True
        self._fail(401, "RepoNotFound", "Invalid username or password.")
        return False

    def _json(self, value) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str, why: str = "not found") -> None:
        headers = {"X-Error-Message": why, **({"X-Error-Code": code} if code else {})}
        self._send(status, json.dumps({"error": why}).encode(), headers)

    def _content(self, content: bytes) -> None:
        asked = self.headers.get("Range")
        headers = {"ETag": hashlib.sha1(content).hexdigest(), "X-Repo-Commit": COMMIT}
        if asked is None:
            return self._send(200, content, headers)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        self._send(206, part, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass
