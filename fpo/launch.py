"""Whether a launcher started this process as one of several: torchrun, or mlx.launch."""

import os

from fpo_core.config.backends import BACKENDS, Backend


def launched_for() -> str | None:
    """The backend whose launcher started this process as one of several; None for one alone."""
    return next((name for name, backend in BACKENDS.items() if _launched(backend)), None)


def process_number() -> int:
    """The number that the launcher gave this process; 0 for one alone."""
    launched = launched_for()
    return 0 if launched is None else int(os.environ[BACKENDS[launched].rank_variable])


def _launched(backend: Backend) -> bool:
    # torchrun numbers a single process too, so there only the size shows several.
    size = backend.size_variable
    several = size is None or int(os.environ.get(size, "1")) > 1
    return several and backend.rank_variable in os.environ
