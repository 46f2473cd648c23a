"""Reading `.pt` files without unpickling objects, which could run code."""

from pathlib import Path
from typing import Any

from fpo_convert.row_readers import ArrayTensor, Tensor, WholeTensor
from fpo_core.errors import SaeError


def load_pt(path: Path) -> dict[str, Any]:
    """A dictionary of tensors and plain values from a `.pt` file, memory-mapped where possible.

    Raises SaeError without torch, and for a file that holds anything but tensors and plain values:
    such pickles can run code and are never loaded.
    """
    try:
        import torch
    except ImportError:
        raise SaeError(
            f"{path} is a PyTorch file and torch is not installed: pip install 'fpo-mlx[torch]'"
        ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except OSError as error:
        raise SaeError(f"{path} cannot be read ({error.strerror}): give an existing file") from None
    except Exception as error:  # torch raises many kinds for damaged or unsafe files
        raise SaeError(
            f"{path} is damaged or holds pickled objects, which are never loaded "
            f"({type(error).__name__}), expected plain tensors: have its author save it as "
            "safetensors"
        ) from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SaeError(f"{path} does not hold a dictionary of tensors: give a state dictionary")
    return {key: _convert(key, value, torch) for key, value in content.items()}


def tensors_of(content: dict[str, Any]) -> dict[str, Tensor]:
    """The entries that are floating-point tensors."""
    return {key: value for key, value in content.items() if hasattr(value, "rows")}


def _convert(key: str, value: Any, torch: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach()
    if value.layout != torch.strided:
        raise SaeError(f"{key} is a sparse tensor, expected a dense one: save it as such")
    if value.dtype == torch.bfloat16:
        return WholeTensor(tuple(value.shape), lambda: value.float().numpy())
    if value.is_floating_point():
        if value.dtype.itemsize < 2:  # NumPy has no such numbers, and their scales are elsewhere
            raise SaeError(f"{key} is stored as {value.dtype}, expected at least 16 bits: widen it")
        return ArrayTensor(value.numpy())
    return value.item() if value.numel() == 1 else value.tolist()


def _is_zip(path: Path) -> bool:
    """Whether torch can map the file; its older format, no zip archive, must be read whole."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"PK"
    except OSError:
        return False
