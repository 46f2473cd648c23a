"""The one family of errors that a user can cause; the command line prints each as a single line."""

import errno
import os
from pathlib import Path
from typing import Any


class FpoError(Exception):
    """A user's mistake or a limit of their set-up: what was found, expected, and to be done."""

    exit_code = 2


def shorten(error: Exception, limit: int = 240) -> str:
    """Another library's message on one line, without full stop.

    Too long a one ends after the last sentence that fits, or within a list, after the last item.
    """
    text = " ".join(str(error).split())
    if " " not in text:  # a KeyError says its key alone
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if len(text) <= limit:
        return text.rstrip(".")
    head = text[:limit]
    sentence = head.rfind(". ")
    return head[:sentence] if sentence > 0 else head.rpartition(" ")[0].rstrip(",;:") + " …"


class ConfigError(FpoError):
    """A setting is unknown, has the wrong type, or contradicts another."""


class DataError(FpoError):
    """Preference data cannot be read, or no usable pair is left."""


class ModelError(FpoError):
    """A model, adapter or tokenizer cannot be loaded or has no place for what is asked."""


class SaeError(FpoError):
    """A sparse autoencoder is malformed, unsupported, or does not fit the model."""


class StoreError(FpoError):
    """A reference store is damaged or was made from something else."""


class BackendError(FpoError):
    """The framework or device that was asked for is not there."""


class TrainingError(FpoError):
    """A run cannot start or go on."""


class JudgeError(FpoError):
    """A judge cannot judge: its endpoint does not answer, or its own code fails."""


class SelfTestError(FpoError):
    """A backend computes something else than it should; `report` says what was checked."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


_ADVICE = {
    errno.ENOENT: "its folder is gone: check whether something else works there",
    errno.ENOTEMPTY: "something else was written there meanwhile: choose another place",
    errno.EEXIST: "something else was written there meanwhile: choose another place",
    errno.ENOTDIR: "a part of its path is a file: choose another place",
    errno.ELOOP: "it is a link, which is not followed: remove the link",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for more",
    errno.EACCES: "check the folder's permissions",
    errno.EPERM: "check the folder's permissions",
    errno.EROFS: "choose a place that can be written",
}


class WriteError(FpoError):
    """A file cannot be written: the disk is full, or the folder is not ours to write."""

    def __init__(self, path: Path, reason: str, then: str = "") -> None:
        known = (advice for code, advice in _ADVICE.items() if os.strerror(code) in reason)
        advice = next(known, "free some space, or check the folder's permissions")
        super().__init__(f"{path} cannot be written ({reason}): {advice}{then and '; '}{then}")
        self.path, self.reason = path, reason


class LockedError(FpoError):
    """Another process writes into the same folder."""

    def __init__(self, folder: Path, setting: str, holder: object) -> None:
        who = "another process" if holder is None else str(holder)
        super().__init__(
            f"{setting} is {folder}, where {who} is writing: wait for it to end, or choose "
            "another folder"
        )


class LostProcessError(TrainingError):
    """Another process of the run is gone."""


class StoppedError(TrainingError):
    """A run was asked to stop, and did so with a checkpoint."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal
