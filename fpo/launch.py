"""Whether a launcher started this process as one of several: torchrun, or mlx.launch."""

import os


def launched_for() -> str | None:
    """The backend whose launcher started this process as one of several; None for one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        return "torch"
    return "mlx" if "MLX_RANK" in os.environ else None


def process_number() -> int:
    """The number that the launcher gave this process; 0 for one alone."""
    names = {"torch": "RANK", "mlx": "MLX_RANK"}
    launched = launched_for()
    return 0 if launched is None else int(os.environ[names[launched]])
