"""Advice for errors of the Hugging Face hub, one sentence each."""

import contextlib
import sys
from collections.abc import Iterator

_OFFLINE = "HF_HUB_OFFLINE"
_TIMEOUT = 10.0


def advice(name: str, error: BaseException) -> str | None:
    """One sentence for an error of the hub's library, or one that it caused; None for any other.

    `name` is the repository as the user called it.
    """
    from huggingface_hub import constants, errors

    for cause in _causes(error):
        if isinstance(cause, errors.GatedRepoError):
            return gated(name)
        if isinstance(cause, errors.RevisionNotFoundError):
            return f"{name} has no such revision on the hub: check revision"
        if isinstance(cause, errors.RepositoryNotFoundError):
            return missing(name)
        if isinstance(cause, errors.HfHubHTTPError):
            return _refused(name, cause)
        if isinstance(cause, _unreachable()):
            why = ", since HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
            return (
                f"{name} is not on this machine, and the hub cannot be reached{why}: check the "
                "name and the network"
            )
    return None


@contextlib.contextmanager
def reached(name: str, kind: str = "model", revision: str | None = None) -> Iterator[None]:
    """Ask the hub once for a repository; where it cannot be reached, caches alone are read inside.

    The libraries would repeat every request for about half a minute each. Raises the hub library's
    errors for a repository that is missing, gated or refused.
    """
    from huggingface_hub import HfApi, constants, errors

    if constants.HF_HUB_OFFLINE:
        yield
        return
    try:
        HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=_TIMEOUT)
    except (errors.HfHubHTTPError, errors.HFValidationError):
        raise
    except Exception:  # whatever its HTTP library raises where there is no network
        with contextlib.ExitStack() as restored:
            # `datasets` has copied the constant.
            for module in (constants, sys.modules.get("datasets.config")):
                if module is not None:
                    restored.callback(setattr, module, _OFFLINE, getattr(module, _OFFLINE))
                    setattr(module, _OFFLINE, True)
            yield
    else:
        yield


def gated(name: str) -> str:
    """What to do about a repository that asks for its licence to be accepted."""
    return f"{name} is gated: accept its licence on the hub, then run `hf auth login`"


def missing(name: str) -> str:
    """What to do about a repository that is not there, or not for everybody."""
    return f"{name} is not on the hub, or private: check the name, or run `hf auth login`"


def _refused(name: str, error: BaseException) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the hub refuses {name} ({status}): run `hf auth login` with a token that may read"
    return f"the hub failed on {name} ({status or type(error).__name__}): try again later"


def _unreachable() -> tuple[type[BaseException], ...]:
    from huggingface_hub import errors

    return (
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        ConnectionError,
        TimeoutError,
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The errors behind an error, the first raised first: it says most."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    yield from reversed(chain)
