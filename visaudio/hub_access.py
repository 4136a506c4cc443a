"""The Hugging Face Hub's files, and what went wrong in one line that holds no token."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError, reason_of

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
_SECRETS = (
    re.compile(r"hf_[\w-]{3,}"),
    re.compile(r"(?<=://)[^/@\s]+(?=@)"),
    re.compile(r"(?<=[Bb]earer )\S+"),
)
LOG_IN = "log in (`hf auth login`, or HF_TOKEN)"


def on_hub(name: str) -> bool:
    """Whether a name means a repository: owner/name, and no folder of that name is here."""
    return REPOSITORY.fullmatch(name) is not None and not Path(name).exists()


def redacted(text: str) -> str:
    """One line of at most 200 characters without anything that looks like a token or a password."""
    from huggingface_hub import get_token

    text = " ".join(text.split())
    token = get_token()
    if token:
        text = text.replace(token, "***")
    for secret in _SECRETS:
        text = secret.sub("***", text)
    return text[:200]


@contextlib.contextmanager
def asking(what: str, writing: bool = False) -> Iterator[None]:
    """Calls of huggingface_hub, whose errors become a UserError that starts with `what`."""
    try:
        yield
    except UserError:
        raise
    # huggingface_hub has changed its HTTP library twice, and lets that library's errors through
    except Exception as error:
        raise UserError(f"{what}: {_reason(error, writing)}") from error


def _reason(error: Exception, writing: bool) -> str:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"the repository is gated: accept its terms on its page, then {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision"
    if writing and status in (401, 403):
        return f"the Hub refuses it ({status}): {LOG_IN} with a token that may write there"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such Hub repository, or it is private: {LOG_IN}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return _not_to_be_had(_unreachable(error))
    if isinstance(error, errors.EntryNotFoundError):
        return f"the repository holds no such file ({redacted(str(error))})"
    if status in (401, 403):
        return f"the Hub refuses it ({status}): {LOG_IN}"
    if status is not None and status >= 500:
        return f"the Hub fails (status {status}): try again later"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full"
    return f"{type(error).__name__}: {redacted(str(error))}"


def _not_to_be_had(reason: str) -> str:
    return (
        f"not in the local cache, and the Hub cannot be reached ({reason}); a cache (HF_HOME) from a machine "
        "with a network serves too, with HF_HUB_OFFLINE=1"
    )


def _unreachable(error: BaseException) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled

    cause = error.__cause__
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if cause is None or isinstance(cause, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE or local_files_only"
    if status is not None:
        return f"it answers with status {status}"
    return redacted(str(cause)) or type(cause).__name__


def fetch_file(
    repository: str,
    path: str,
    revision: str | None = None,
    *,
    what: str,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """A repository's file in the local cache, fetched if it is not there yet. what: for messages.

    Its folder is the snapshot of one commit: see `commit_of`. Raises UserError where it cannot be had.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    with asking(what), retries_unsaid():
        cached = try_to_load_from_cache(repository, path, cache_dir=cache_dir, revision=revision)
        if not (isinstance(cached, str) or local_files_only or constants.HF_HUB_OFFLINE):
            reason = knock(repository, path, revision)
            if reason:
                raise UserError(f"{what}: {_not_to_be_had(reason)}")
        return Path(
            hf_hub_download(
                repository, path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
            )
        )


def knock(repository: str, path: str, revision: str | None = None, repo_type: str | None = None) -> str:
    """Why no connection to the Hub comes about in two tries, a second apart; "" where one does.

    hf_hub_download alone would try for half a minute, for each file anew. All other errors are left to it:
    behind a connection that stands, its patience is right.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    for is_last in (False, True):
        try:
            get_hf_file_metadata(hf_hub_url(repository, path, repo_type=repo_type, revision=revision))
            return ""
        except Exception as error:
            # by name: httpx and requests call them so, and huggingface_hub has had both
            names = {kind.__name__ for kind in type(error).__mro__}
            if not names & {"ConnectError", "ConnectTimeout", "ConnectionError"}:
                return ""
            if is_last:
                return redacted(str(error)) or type(error).__name__
        time.sleep(1)
    return ""


@contextlib.contextmanager
def retries_unsaid() -> Iterator[None]:
    """huggingface_hub's lines on each retry are held back: the error that ends them says it all.

    Whoever set HF_HUB_VERBOSITY to info or debug still gets them.
    """
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if level == logging.WARNING:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def commit_of(cached: Path, path: str) -> str:
    """The commit of a fetched file: the cache keeps it below snapshots/<commit>/."""
    root = cached
    for _ in Path(path).parts:
        root = root.parent
    if not COMMIT.fullmatch(root.name):
        raise UserError(f"{cached}: expected it in a snapshot of the Hub's cache, named after its commit")
    return root.name


def header_of(card: Path) -> dict[str, Any]:
    """The YAML header of a README.md as a mapping; empty if it has none."""
    import yaml

    found = re.match(
        r"---\s*\n(.*?)\n---\s*(\n|$)", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL
    )
    try:
        header = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        raise UserError(f"{card}: its header is not valid YAML ({reason_of(error, 100)})") from error
    return header if isinstance(header, dict) else {}
