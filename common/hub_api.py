"""The Hugging Face Hub: asking it for a repository, checking the token, pushing a folder."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from common.errors import UserError
from common.signals import ending_at_once

# Seconds until a Hub that does not answer is given up; the variable is that of huggingface_hub.
PATIENCE = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", 3.5))


def ask_hub(kind: str, name: str, revision: str | None = None) -> tuple[str, list[str]] | None:
    """Asks the Hub for a repository: one quick question, before anything retries a dead network.

    Args:
        kind: "dataset" or "model".
        name: `user/name`.
        revision: Branch, tag or commit. Default: the main branch.

    Returns:
        (commit, names of the files), or None with `HF_HUB_OFFLINE=1`, which forbids questions.

    Raises:
        UserError: The repository cannot be had.
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return None
    endpoint = huggingface_hub.constants.ENDPOINT
    kind_of = {"dataset": "data set"}.get(kind, kind)
    what = f"{kind_of} {name}" if revision is None else f"{kind_of} {name} at revision {revision}"
    try:
        api = huggingface_hub.HfApi()
        ask: Any = api.dataset_info if kind == "dataset" else api.model_info
        found = _answer_within(PATIENCE, lambda: ask(name, revision=revision, timeout=PATIENCE))
    except HFValidationError:
        raise UserError(
            f"{name} is neither a folder nor a {kind_of} of the Hub, user/name."
        ) from None
    except GatedRepoError:
        raise UserError(
            f"The {what} asks for your consent. Give it at {endpoint}, and log in by `hf auth "
            "login` or HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"There is no {what} on {endpoint}. Check the revision.") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"There is no {what} on {endpoint}, or it is private. Check the name, or log in by "
            "`hf auth login` or HF_TOKEN."
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"The Hub does not give out the {what}: {error}") from None
    except Exception as error:  # the HTTP client's own, which differs between versions
        raise UserError(
            f"Cannot reach {endpoint} for the {what} ({error}). HF_HUB_OFFLINE=1 uses what was "
            "downloaded before."
        ) from None
    return found.sha or "", [file.rfilename for file in found.siblings or []]


def why(error: BaseException) -> str:
    """Reason for which something could not be had from the Hub, in words, with a point at its end.

    Libraries blame the network also where `HF_HUB_OFFLINE=1` forbids it.
    """
    missing = isinstance(error, ConnectionError | FileNotFoundError)
    if huggingface_hub.constants.HF_HUB_OFFLINE and missing:
        return (
            "HF_HUB_OFFLINE=1 forbids a download, and no earlier one is in the cache. Take the "
            "variable away (`unset HF_HUB_OFFLINE`) to download it."
        )
    return f"{error}".rstrip(".") + "."


def _answer_within(seconds: float | None, question: Callable[[], Any]) -> Any:
    """Asks a question that may hang, as one to a name server, and returns or raises its outcome.

    Raises:
        TimeoutError: There was no answer.
    """
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(question())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        raise TimeoutError(
            f"no answer within {seconds:g} seconds; HF_HUB_ETAG_TIMEOUT=20 waits longer"
        )
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def push_folder(
    folder: str | Path,
    name: str,
    kind: str,
    private: bool,
    again: str,
    files: list[str] | None = None,
) -> str:
    """Uploads a folder to the Hub.

    Args:
        folder: Folder with the files.
        name: `user/name`, or a name alone for the user of the token. A repository that is not there
            is made.
        kind: "dataset" or "model".
        private: Whether a repository that is made is for its owner only.
        again: Command by which the user can try again.
        files: Names of the files to upload. Default: all.

    Returns:
        Address of the repository.

    Raises:
        UserError: The folder could not be uploaded; it stays as it is.
    """
    api = huggingface_hub.HfApi()

    def push() -> str:
        repository = api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository.repo_id,
            repo_type=kind,
            folder_path=folder,
            allow_patterns=files,
            commit_message=f"Upload a super-resolution {kind}",
        )
        return str(repository)

    stopped = f"the push to {name} is not done. Repeat it by\n    {again}"
    try:
        with ending_at_once(stopped):
            return _answer_within(None, push)  # in a thread: it could wait without hearing signals
    except Exception as error:  # errors of many kinds: network, token, name
        raise UserError(
            f"Could not push {folder} to {name} on the Hub: {f'{error}'[:200]}. It is all still in "
            f"{folder}; try again by\n    {again}"
        ) from None


def full_name(name: str) -> str:
    """`user/name` of a repository; a name alone is that of the user of the token.

    Where the Hub does not tell who that is, the name alone.
    """
    if "/" in name:
        return name
    try:
        return f"{_answer_within(PATIENCE, huggingface_hub.HfApi().whoami)['name']}/{name}"
    except Exception:  # errors of many kinds, which the push itself will tell
        return name


def check_token(later: str) -> None:
    """Checks that the Hub accepts the token, before long work whose result is to be pushed.

    Args:
        later: Command by which the user can push when the work is done.

    Raises:
        UserError: There is no token, or the Hub does not know it.
    """
    if huggingface_hub.get_token() is None:
        raise UserError("--push_to_hub needs a token. Log in by `hf auth login`, or set HF_TOKEN.")
    try:
        _answer_within(PATIENCE, huggingface_hub.HfApi().whoami)
    except Exception as error:
        raise UserError(
            f"--push_to_hub: {huggingface_hub.constants.ENDPOINT} does not accept the token, or "
            f"cannot be reached ({f'{error}'[:150]}). Log in by `hf auth login`, or leave "
            f"--push_to_hub out, and push later by\n    {later}"
        ) from None
