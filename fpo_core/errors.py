"""The one family of errors that a user can cause; the command line prints each as a single line."""

from typing import Any


class FpoError(Exception):
    """A user's mistake or a limit of their set-up: what was found, expected, and to be done."""


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


class SelfTestError(FpoError):
    """A backend computes something else than it should; `report` says what was checked."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report
