"""Replace the forward passes of single modules for the length of a `with` block."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn


@contextlib.contextmanager
def patched(forwards: Iterable[tuple[nn.Module, Callable[..., Tensor]]]) -> Iterator[None]:
    """Within, each module computes by the function paired with it."""
    modules: list[nn.Module] = []
    try:
        for module, forward in forwards:
            vars(module)["forward"] = forward
            modules.append(module)
        yield
    finally:
        for module in modules:
            del vars(module)["forward"]


def is_patched(module: nn.Module) -> bool:
    """Whether a function replaces its forward pass now."""
    return "forward" in vars(module)
