"""`python -m bi_audio_dataset push DIR --repo OWNER/NAME`: a finished dataset onto the Hugging Face Hub.

What goes, and what must be so that it may: publishable.py.

Files that the repository holds already, with the same hash, are not sent. The others are first sent group by
group without being visible; one commit then shows them all and takes away Parquet files that are no longer
part of the dataset. So readers see the old dataset or the new one, and an interrupted push is run again:
the Hub keeps what it was sent. Only above COMMIT_FILES files are there several commits, the card in the last.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bi_audio_dataset.publishable import ABOUT, INNER_ABOUT, check, published_files
from bi_audio_dataset.schema import CONFIGS, UserError
from bi_audio_dataset.validate import find_shards

KIND = "dataset"
#: Sent at a time before the commit: at most so many files, and about so many bytes.
GROUP_FILES, GROUP_BYTES = 50, 4 * 10**9
COMMIT_FILES = 500
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Pushed:
    """sent, kept, deleted: paths in the repository; kept are those that it held already."""

    url: str
    sent: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


@dataclass
class _Difference:
    """What a repository lacks, holds as it is here, and holds too much of."""

    send: dict[str, Path] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)


def push(
    folder: Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    more_removals: Sequence[Path] = (),
    api: Any = None,
    progress: bool = False,
) -> Pushed:
    """Bring a repository of the Hub in line with a finished dataset; it is made if it is not there.

    revision: a branch, made if it is not there (default: the main one). api: an HfApi, by default one with
    the user's own token. UserError where there is no token, where the folder does not pass `validate
    --quick`, holds clips that are on the removal list or whose licence forbids copies, and where the Hub
    refuses.
    """
    folder = Path(folder)
    if not _NAME.fullmatch(repository):
        raise UserError(f"repository is '{repository}', expected OWNER/NAME")
    find_shards(folder)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    _check_token(api)
    check(folder, more_removals, progress)
    files = published_files(folder)
    with _hub(repository):
        _make_repository(api, repository, private, revision)
        head = api.repo_info(repository, repo_type=KIND, revision=revision).sha
        wanted = difference(files, _listing(api, repository, revision))
        url = _send(api, repository, revision, head, wanted, progress)
    return Pushed(url, tuple(wanted.send), tuple(wanted.kept), tuple(wanted.delete))


# -------------------- what is there


def difference(files: dict[str, Path], there: dict[str, tuple[int, str]]) -> _Difference:
    """there: path -> (size, SHA-256 of a large file or git's hash of a small one)."""
    found = _Difference()
    for name, path in files.items():
        if name in there and _same(path, *there[name]):
            found.kept.append(name)
        else:
            found.send[name] = path
    for name in sorted(there.keys() - files.keys()):
        place, _, last = name.rpartition("/")
        ours = place in CONFIGS.values() and last.endswith(".parquet")
        if ours or name in INNER_ABOUT:
            found.delete.append(name)
    return found


def _same(path: Path, size: int, digest: str) -> bool:
    if path.stat().st_size != size:
        return False
    if len(digest) == 64:
        sha = hashlib.sha256()
        with open(path, "rb") as handle:
            while block := handle.read(1 << 20):
                sha.update(block)
        return sha.hexdigest() == digest
    return hashlib.sha1(b"blob %d\0" % size + path.read_bytes()).hexdigest() == digest  # as git does


def _listing(api: Any, repository: str, revision: str | None) -> dict[str, tuple[int, str]]:
    tree = api.list_repo_tree(repository, recursive=True, revision=revision, repo_type=KIND)
    files = [item for item in tree if getattr(item, "size", None) is not None]  # not the folders
    return {item.path: (item.size, item.lfs.sha256 if item.lfs else item.blob_id) for item in files}


# -------------------- sending


def _send(
    api: Any, repository: str, revision: str | None, head: str, wanted: _Difference, progress: bool
) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    adds = []
    for group in _groups(wanted.send):
        if progress:
            print(f"sending {len(group)} files from {next(iter(group))} on", file=sys.stderr)
        made = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in group.items()]
        api.preupload_lfs_files(
            repository, additions=made, repo_type=KIND, revision=revision, free_memory=False
        )
        adds += made
    # what is to go goes first, what describes the rest comes last
    adds.sort(key=lambda add: add.path_in_repo in ABOUT)
    operations = [CommitOperationDelete(path_in_repo=name) for name in wanted.delete] + adds
    url = f"https://huggingface.co/datasets/{repository}"
    for start in range(0, len(operations), COMMIT_FILES):
        commit = api.create_commit(
            repository,
            operations=operations[start : start + COMMIT_FILES],
            commit_message="BiAudio dataset"
            if len(operations) <= COMMIT_FILES
            else "BiAudio dataset, in parts",
            repo_type=KIND,
            revision=revision,
            parent_commit=head,
        )
        head, url = commit.oid, str(commit.commit_url)
    return url


def _groups(files: dict[str, Path]) -> Iterator[dict[str, Path]]:
    group: dict[str, Path] = {}
    size = 0
    for name, path in files.items():
        if group and (len(group) == GROUP_FILES or size >= GROUP_BYTES):
            yield group
            group, size = {}, 0
        group[name] = path
        size += path.stat().st_size
    if group:
        yield group


def _make_repository(api: Any, repository: str, private: bool, revision: str | None) -> None:
    asked = {"private": True} if private else {}  # else the owner's default
    api.create_repo(repository, repo_type=KIND, exist_ok=True, **asked)
    if private and api.repo_info(repository, repo_type=KIND).private is not True:
        # the Hub leaves one that is there as it is
        raise UserError(
            f"'{repository}' is there already and public: make it private, or leave out --private"
        )
    if revision is not None:
        api.create_branch(repository, branch=revision, repo_type=KIND, exist_ok=True)


def _check_token(api: Any) -> None:
    from huggingface_hub.errors import LocalTokenNotFoundError

    try:
        with _hub(None):
            api.whoami()
    except LocalTokenNotFoundError:
        raise UserError(
            "no token of the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN to one that may write"
        ) from None


@contextlib.contextmanager
def _hub(repository: str | None) -> Iterator[None]:
    """Failures of the Hub and of the way there as one line. Their classes come from four libraries (requests,
    httpx, hf_xet, huggingface_hub), so all are taken."""
    from huggingface_hub.errors import LocalTokenNotFoundError

    try:
        yield
    except (UserError, LocalTokenNotFoundError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or "no reason given"
        reason = f"{type(error).__name__}: {reason}"
        if repository is None:
            raise UserError(f"the Hub does not say whose token this is ({reason})") from error
        raise UserError(
            f"cannot push to '{repository}': {reason}; the same command goes on from here"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """python -m bi_audio_dataset push DIR --repo OWNER/NAME. Raises UserError."""
    from bi_audio_dataset.arguments import Parser

    parser = Parser(
        prog="python -m bi_audio_dataset push",
        description="Upload a finished dataset to the Hugging Face Hub. An interrupted push is run again.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="finished dataset")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="made if it is not there")
    parser.add_argument("--private", action="store_true", help="make it private")
    parser.add_argument("--revision", metavar="BRANCH", help="made if it is not there (default: main)")
    parser.add_argument(
        "--removals", type=Path, action="append", default=[], metavar="FILE", help="beside DIR/removals.jsonl"
    )
    options = parser.parse_args(argv)
    done = push(
        options.folder,
        options.repo,
        private=options.private,
        revision=options.revision,
        more_removals=options.removals,
        progress=sys.stderr.isatty(),
    )
    counts = f"{len(done.sent)} files sent, {len(done.kept)} there already, {len(done.deleted)} deleted"
    print(f"{done.url}: {counts}")
    return 0
