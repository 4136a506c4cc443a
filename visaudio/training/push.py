"""Where the export stage pushes the model, and a look before training at whether that can work."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from bi_audio_dataset.schema import UserError

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class HubConfig:
    """repository: owner/name that the exported model is pushed to. private: if it is new, only its owner sees
    it. revision: branch to commit to; null is main.
    """

    repository: str = ""
    private: bool = False
    revision: str | None = None

    def __post_init__(self) -> None:
        if not _REPOSITORY.fullmatch(self.repository):
            raise UserError(f"hub.repository is {self.repository!r}, expected owner/name on the Hub")


def check_push(config: HubConfig) -> None:
    """Ask the Hub who is asking. Raises UserError where nobody is logged in, the Hub cannot be reached, or
    the repository's owner is neither the user nor one of the user's organisations: now, not after training.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    where = f"hub.repository is {config.repository}"
    if constants.is_offline_mode():
        raise UserError(f"{where}, but HF_HUB_OFFLINE is set; unset it, or leave hub out and push later")
    try:
        user = HfApi().whoami()
    except LocalTokenNotFoundError:
        raise UserError(
            f"{where}, but nobody is logged in; run `hf auth login`, or set HF_TOKEN to one that may write"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise UserError(
            f"{where}, but the Hub does not know the token (status {status}); run `hf auth login`, or set "
            "HF_TOKEN to one that may write"
        ) from None
    except Exception as error:  # requests, httpx and sockets each raise their own kinds
        raise UserError(
            f"{where}, but the Hub cannot be reached ({type(error).__name__}); leave hub out and push later: "
            "python -m visaudio.hub push"
        ) from None
    owner = config.repository.split("/")[0]
    owners = [user.get("name", ""), *(team.get("name", "") for team in user.get("orgs") or ())]
    if owner.lower() not in [name.lower() for name in owners]:
        raise UserError(
            f"{where}, but {owners[0]} is logged in, who may write to {', '.join(owners)}; choose another "
            "repository, or log in as its owner"
        )


def check_wanted(config: HubConfig | None, stages: list[str]) -> None:
    """`check_push` on the first process, where the export stage is to run."""
    if config is not None and "export" in stages and os.environ.get("RANK", "0") == "0":
        check_push(config)
