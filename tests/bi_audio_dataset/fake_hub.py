"""A Hub in memory, with the methods of HfApi that push calls, their names and their keywords."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import LocalTokenNotFoundError


class FakeHub:
    """Parquet files are large ones: sent ahead of the commit, known by their SHA-256. dies_after: how many of
    them can be sent before the line breaks, None for all."""

    def __init__(self, token="hf_x", dies_after=None):
        self.token, self.dies_after = token, dies_after
        self.private = None
        self.branches = {}
        self.stored, self.uploads, self.commits = {}, [], []

    def whoami(self):
        if self.token is None:
            raise LocalTokenNotFoundError("Token is required")
        return {"name": "ann"}

    def create_repo(self, repo_id, *, repo_type, exist_ok, private=False):
        assert repo_type == "dataset" and exist_ok
        if not self.branches:
            self.private = private
            self.branches["main"] = {".gitattributes": b"*.parquet filter=lfs"}

    def create_branch(self, repo_id, *, branch, repo_type, exist_ok):
        self.branches.setdefault(branch, dict(self.branches["main"]))

    def repo_info(self, repo_id, *, repo_type, revision=None):
        return SimpleNamespace(private=self.private, sha=self._head(revision))

    def list_repo_tree(self, repo_id, *, recursive, revision, repo_type):
        yield SimpleNamespace(path="data", tree_id="0")
        for path, content in self.branches[revision or "main"].items():
            large = path.endswith(".parquet")
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            lfs = SimpleNamespace(sha256=hashlib.sha256(content).hexdigest()) if large else None
            yield SimpleNamespace(path=path, size=len(content), blob_id=git, lfs=lfs)

    def preupload_lfs_files(self, repo_id, *, additions, repo_type, revision, free_memory):
        for add in additions:
            if not add.path_in_repo.endswith(".parquet"):
                continue
            content = Path(add.path_or_fileobj).read_bytes()
            name = hashlib.sha256(content).hexdigest()
            if name in self.stored:
                continue  # as the real one: what it has is not sent again
            if self.dies_after is not None and len(self.uploads) >= self.dies_after:
                raise ConnectionError("the line\nbroke")
            self.stored[name] = content
            self.uploads.append(add.path_in_repo)

    def create_commit(self, repo_id, *, operations, commit_message, repo_type, revision, parent_commit):
        assert parent_commit == self._head(revision)
        files = self.branches[revision or "main"]
        for operation in operations:
            if isinstance(operation, CommitOperationDelete):
                del files[operation.path_in_repo]
                continue
            assert isinstance(operation, CommitOperationAdd)
            files[operation.path_in_repo] = Path(operation.path_or_fileobj).read_bytes()
            if operation.path_in_repo.endswith(".parquet"):
                assert hashlib.sha256(files[operation.path_in_repo]).hexdigest() in self.stored
        self.commits.append([operation.path_in_repo for operation in operations])
        return SimpleNamespace(
            oid=self._head(revision), commit_url=f"https://hub/{repo_id}/{len(self.commits)}"
        )

    def _head(self, revision):
        return f"{revision or 'main'}-{len(self.commits)}"
