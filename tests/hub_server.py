"""A small Hugging Face Hub on loopback: models and datasets, branches, tags and commits, over real HTTP.

It speaks what huggingface_hub and datasets ask of the real one: creating repositories and branches,
preupload, LFS (batch, upload, verify), commits that add and delete, trees, paths-info, resolve with ranges
and, for large files, a redirect to a content address. Xet is not imitated: set HF_HUB_DISABLE_XET=1.

Trouble can be ordered: `fails` (path part -> status), `cuts` (path part -> bytes after which the connection
breaks, once), gated and private repositories. `requests` is what was asked.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote

LARGE = (".safetensors", ".parquet", ".pth", ".bin", ".png")  # sent by LFS, whatever their size


@dataclass
class Repository:
    """commits: id -> path -> content; refs: branch or tag -> commit; log: what each pushed commit did."""

    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    log: list[list[tuple[str, str]]] = field(default_factory=list)

    def put(self, files: dict[str, bytes], branch: str = "main") -> str:
        """A commit with exactly these files."""
        number = f"{self.name} {branch} {len(self.commits)}"
        commit = hashlib.sha1(number.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.refs[branch] = commit
        return commit

    def at(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.commit_of(revision)]

    @property
    def files(self) -> dict[str, bytes]:
        return self.at()

    def commit_of(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


class HubServer:
    """token: may read and write everything but gated repositories; `friend` may read those too."""

    def __init__(self, token: str = "hf_x", friend: str = "hf_friend") -> None:
        self.token, self.friend = token, friend
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.stored: dict[str, bytes] = {}  # LFS, by SHA-256
        self.fails: dict[str, int] = {}
        self.cuts: dict[str, int] = {}
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.lock = threading.Lock()
        self.port = 0
        self.open()

    def open(self) -> None:
        """Listens, again at the same port after `close`."""
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), type("Bound", (_Handler,), {"hub": self}))
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def make(self, name: str, kind: str = "models", **options) -> Repository:
        repository = Repository(name, **options)
        repository.put({})
        return self.repositories.setdefault((kind, name), repository)

    def asked(self, part: str, method: str = "GET") -> list[str | None]:
        """The Range headers of the requests whose path holds `part`."""
        return [ranged for verb, path, ranged in self.requests if verb == method and part in path]


def _entry(path: str, content: bytes) -> dict:
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if path.endswith(LARGE):
        sha = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
    return entry


def _tree(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict]:
    below = f"{folder}/" if folder else ""
    inside = sorted(path for path in files if path.startswith(below))
    folders = {below + path.removeprefix(below).split("/")[0] for path in inside}
    if recursive:
        folders = {path[:at] for path in inside for at in range(len(below), len(path)) if path[at] == "/"}
        shown = inside
    else:
        shown = [path for path in inside if "/" not in path.removeprefix(below)]
    places = [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)]
    return [place for place in places if place["path"] not in files] + [_entry(p, files[p]) for p in shown]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    # -------------------- verbs

    def do_GET(self) -> None:
        self._handle(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._handle(self._post)

    def do_PUT(self) -> None:
        self._handle(self._put)

    def _handle(self, answer) -> None:
        path, _, query = self.path.partition("?")
        path, hub = unquote(path), self.hub
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with hub.lock:
            hub.requests.append((self.command, path, self.headers.get("Range")))
        for part, status in hub.fails.items():
            if part in path:
                return self._fail(status, "", f"ordered: {status}")
        answer(path, query, body)

    # -------------------- reading

    def _get(self, path: str, query: str, body: bytes) -> None:
        if path == "/api/whoami-v2":
            if self._who() is None:
                return self._fail(401, "", "Invalid username or password.")
            return self._json({"type": "user", "name": "ann", "orgs": []})
        if path.startswith("/cdn/"):
            return self._content(self.hub.stored[path.removeprefix("/cdn/")], {}, path)
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+(?:/pr/\d+)?)/(.+)", path):
            return self._resolve("datasets" if found[1] else "models", found[2], found[3], found[4])
        found = re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.+))?)?", path
        )
        if not found:
            return self._fail(404, "RepoNotFound")
        kind, name, what, revision, folder = found.groups()
        repository = self._repository(kind, name)
        if repository is None:
            return
        commit = repository.commit_of(revision or "main")
        if commit is None:
            return self._fail(404, "RevisionNotFound")
        files = repository.commits[commit]
        if what == "tree":
            entries = _tree(files, folder or "", "recursive=true" in query.lower())
            return self._json(entries) if entries or not folder else self._fail(404, "EntryNotFound")
        siblings = [{"rfilename": name} for name in sorted(files)]
        about = {"id": repository.name, "sha": commit, "private": repository.private, "tags": []}
        self._json({**about, "gated": "auto" if repository.gated else False, "siblings": siblings})

    def _resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        repository = self._repository(kind, name)
        if repository is None:
            return
        if repository.gated and self._who() != "friend":
            return self._fail(
                401 if self._who() is None else 403, "GatedRepo", f"Access to {name} is restricted."
            )
        commit = repository.commit_of(revision)
        if commit is None:
            return self._fail(404, "RevisionNotFound")
        headers = {"X-Repo-Commit": commit}
        content = repository.commits[commit].get(file)
        if content is None:
            return self._fail(404, "EntryNotFound", more=headers)
        if not file.endswith(LARGE):
            headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            return self._content(content, headers, self.path)
        sha = hashlib.sha256(content).hexdigest()
        self.hub.stored[sha] = content
        headers |= {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content))}
        # another host, as the real one's: huggingface_hub sends no token there
        place = self.hub.url.replace("127.0.0.1", "localhost")
        self._send(302, b"", {**headers, "Location": f"{place}/cdn/{sha}"})

    def _content(self, content: bytes, headers: dict[str, str], path: str) -> None:
        asked = self.headers.get("Range")
        part = content
        status = 200
        if asked is not None:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last) + 1 if last else None]
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
            status = 206
        cut = None
        if self.command == "GET":
            with self.hub.lock:
                # large files are asked for by their hash, orders name them by path
                keys = [key for key in self.hub.cuts if key in path or self._is(key, path)]
                cut = self.hub.cuts.pop(keys[0]) if keys else None
        self._send(status, part, headers, cut)

    def _is(self, name: str, path: str) -> bool:
        wanted = path.removeprefix("/cdn/")
        return any(
            file.endswith(name) and hashlib.sha256(content).hexdigest() == wanted
            for repository in self.hub.repositories.values()
            for files in repository.commits.values()
            for file, content in files.items()
        )

    # -------------------- writing

    def _post(self, path: str, query: str, body: bytes) -> None:
        if path == "/api/validate-yaml":
            stated = re.search(r"^license: ", json.loads(body)["content"], re.MULTILINE)
            errors = (
                [] if stated or json.loads(body)["repoType"] == "dataset" else [{"message": "no license"}]
            )
            return self._json({"errors": errors, "warnings": []}, 400 if errors else 200)
        reading = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/paths-info/([^/]+)", path)
        if reading:
            return self._paths_info(*reading.groups(), body)
        if self._who() is None:
            return self._fail(401, "", "Invalid username or password.")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/lfs-verify":
            asked = json.loads(body)
            right = len(self.hub.stored.get(asked["oid"], b"")) == asked["size"]
            return self._json({}) if right else self._fail(404, "")
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body))
        found = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit|branch|tag)/(.+)", path)
        repository = self._repository(found[1], found[2]) if found else self._fail(404, "RepoNotFound")
        if repository is None:
            return
        getattr(self, f"_{found[3]}")(found[1], repository, found[4], body)

    def _put(self, path: str, query: str, body: bytes) -> None:
        oid = path.removeprefix("/lfs/")
        if hashlib.sha256(body).hexdigest() != oid:
            return self._fail(400, "", "not what was announced")
        self.hub.stored[oid] = body
        self._send(200, b"", {})

    def _paths_info(self, kind: str, name: str, revision: str, body: bytes) -> None:
        repository = self._repository(kind, name)
        if repository is None:
            return
        if repository.commit_of(revision) is None:
            return self._fail(404, "RevisionNotFound")
        files = repository.at(revision)
        form = parse_qs(body.decode())
        paths = form["paths"] if "paths" in form else json.loads(body)["paths"]
        self._json([_entry(path, files[path]) for path in paths if path in files])

    def _create(self, asked: dict) -> None:
        name, kind = f"{asked['organization']}/{asked['name']}", f"{asked.get('type') or 'model'}s"
        place = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{name}"
        if (kind, name) in self.hub.repositories:
            return self._json({"error": "You already created this repo", "url": place}, 409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.make(name, kind, private=private)
        self._json({"url": place, "name": name})

    def _batch(self, asked: dict) -> None:
        objects = []
        for one in asked["objects"]:
            made = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.stored:
                up = {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}
                made["actions"] = {
                    "upload": up,
                    "verify": {"href": f"{self.hub.url}/lfs-verify", "header": {}},
                }
            objects.append(made)
        self._json({"transfer": "basic", "objects": objects})

    def _preupload(self, kind: str, repository: Repository, revision: str, body: bytes) -> None:
        names = [file["path"] for file in json.loads(body)["files"]]
        mode = {True: "lfs", False: "regular"}
        self._json(
            {
                "files": [
                    {"path": name, "uploadMode": mode[name.endswith(LARGE)], "shouldIgnore": False}
                    for name in names
                ]
            }
        )

    def _commit(self, kind: str, repository: Repository, revision: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines() if line]
        head = repository.refs.get(revision)
        if head is None:
            return self._fail(404, "RevisionNotFound")
        parent = lines[0]["value"].get("parentCommit")
        if parent not in (None, head):
            return self._fail(412, "", "A commit has happened since.")
        files, done = dict(repository.commits[head]), []
        for line in lines[1:]:
            key, value = line["key"], line["value"]
            done.append((key, value["path"]))
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile" and value["oid"] in self.hub.stored:
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif key == "deletedFile" and value["path"] in files:
                del files[value["path"]]
            else:
                return self._fail(400, "", f"cannot be done: {key} {value['path']}")
        commit = repository.put(files, revision)
        repository.log.append(done)
        place = f"{'datasets/' if kind == 'datasets' else ''}{repository.name}"
        self._json({"commitUrl": f"{self.hub.url}/{place}/commit/{commit}", "commitOid": commit})

    def _branch(self, kind: str, repository: Repository, name: str, body: bytes) -> None:
        if name in repository.refs:
            return self._fail(409, "", "Reference already exists")
        start = json.loads(body or b"{}").get("startingPoint", "main")
        repository.refs[name] = repository.commit_of(start)
        self._json({})

    def _tag(self, kind: str, repository: Repository, revision: str, body: bytes) -> None:
        repository.refs[json.loads(body)["tag"]] = repository.commit_of(revision)
        self._json({})

    # -------------------- answers

    def _who(self) -> str | None:
        sent = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return {self.hub.token: "ann", self.hub.friend: "friend"}.get(sent) if sent else None

    def _repository(self, kind: str, name: str) -> Repository | None:
        """Answers itself, and gives None, where there is none for who asks."""
        found = self.hub.repositories.get((kind, name))
        wrong = bool(self.headers.get("Authorization")) and self._who() is None
        if found is None or (found.private and self._who() is None) or wrong:
            # as the real one: without an account one does not learn whether it exists
            self._fail(404 if self._who() else 401, "RepoNotFound", "Repository not found")
            return None
        return found

    def _json(self, value, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(
        self, status: int, code: str, why: str = "not found", more: dict[str, str] | None = None
    ) -> None:
        headers = {"X-Error-Message": why, **(more or {}), **({"X-Error-Code": code} if code else {})}
        self._send(status, json.dumps({"error": why}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_) -> None:
        pass
