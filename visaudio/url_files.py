"""Files at an address, kept in torch.hub's cache, where other programs keep the same ones.

https://zenodo.org/records/3987831/files/Cnn14_16k_mAP%3D0.438.pth#sha256=e2ee...
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bi_audio_dataset.schema import UserError
from visaudio.hub_access import redacted

TIMEOUT_S = 10.0  # of silence on the line
BLOCK = 2**20


def is_url(source: str) -> bool:
    return source.startswith(("https://", "http://"))


def cached_path(url: str) -> Path:
    """Where the file of an address is kept: TORCH_HOME, or ~/.cache/torch, under its own name."""
    from torch import hub

    return Path(hub.get_dir()) / "checkpoints" / unquote(urlsplit(url).path).rpartition("/")[2]


def fetch(url: str, what: str = "a model") -> Path:
    """The local file of `url`, downloaded if it is not there; its content checked against `#sha256=`.

    Raises UserError where it cannot be had (HF_HUB_OFFLINE forbids it), or is another file.
    """
    address, _, digest = url.partition("#sha256=")
    path = cached_path(address)
    if not path.is_file():
        _download(address, digest, path, what)
    elif digest and sha256(path) != digest:
        raise UserError(
            f"{path}: not the weights of {what} published at {address} (another SHA-256): delete it, or give "
            "the path of a file you have"
        )
    return path


def _download(address: str, digest: str, path: Path, what: str) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"weights of {what} are not at {path}, and HF_HUB_OFFLINE forbids to download them from {address}"
        )
    logging.getLogger(__name__).warning("downloading the weights of %s from %s", what, address)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as written:
            found = _copy(address, written)
        if digest and found != digest:
            raise UserError(
                f"weights of {what}: what came from {address} is not the published file (another SHA-256)"
            )
        os.replace(part, path)  # whole, or not at all
    except UserError:
        raise
    # an answer that makes no sense or is cut short, an address that is none
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(
            f"weights of {what} could not be downloaded from {address} ({redacted(str(error))}): put the "
            f"file at {path}, or give its path"
        ) from error
    finally:
        Path(part).unlink(missing_ok=True)


def _copy(address: str, written) -> str:
    """Write what stands at the address; its SHA-256. OSError where it ends early."""
    hashed, size = hashlib.sha256(), 0
    request = urllib.request.Request(address, headers={"User-Agent": "visaudio"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        announced = response.headers.get("Content-Length")
        while block := response.read(BLOCK):
            written.write(block)
            hashed.update(block)
            size += len(block)
    if announced is not None and size != int(announced):
        raise OSError(f"{size} of {announced} bytes came")
    return hashed.hexdigest()


def sha256(path: str | Path) -> str:
    """Of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
