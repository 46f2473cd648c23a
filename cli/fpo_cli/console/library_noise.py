"""Silencing libraries that do not speak to the user. Our own warnings pass: they are events."""

import logging
import os
import warnings

LIBRARIES = ("transformers", "torch", "peft", "mlx_lm", "datasets", "huggingface_hub", "matplotlib")
_KINDS = (FutureWarning, DeprecationWarning, PendingDeprecationWarning, UserWarning)
_LOGGERS = ("transformers", "peft", "matplotlib.font_manager", "huggingface_hub.utils")
_SETTINGS = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def quiet() -> None:
    """Set libraries' verbosity before they are imported; what the user has set stays."""
    # `setdefault`: whoever wants to see a library's messages has set its variable.
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    for library in LIBRARIES:
        for kind in _KINDS:
            warnings.filterwarnings("ignore", category=kind, module=rf"{library}(\..*)?$")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
