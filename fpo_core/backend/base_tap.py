"""What the taps of both frameworks share: where they sit, and the passes they capture."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from fpo_core.arrays.ops import Array
from fpo_core.sae.activation_reader import Splice
from fpo_core.sae.tap_points import tap_point


class BaseTap:
    """`fpo_core.sae.taps.Tap` at a site of one block.

    A backend has the module call `store` with every activation that passes the site, and go on with
    what `spliced` makes of it.
    """

    def __init__(self, block: Any, site: str) -> None:
        """`block` is the framework's module; SaeError where it has no such site."""
        modules = dict(block.named_modules())
        point = tap_point(site, modules.__contains__)
        self.block = block
        self.inside = point.path != ""
        """Whether the site lies inside the block, not at its input or output."""
        self.capturing = False
        self.value: Array | None = None
        """The last activation stored while capturing, (n, t, d_in)."""
        self._splice: Splice | None = None
        self._module, self._reads_output = modules[point.path], point.end == "output"

    def capture(self, forward: Callable[[], Any]) -> tuple[Any, Array]:
        """Run `forward`: its result, and the activation of that pass, (n, t, d_in).

        Captures nest, for a checkpoint captures inside its block, again when it repeats it. One
        that is over ignores later passes, such as torch's repetitions of a block in backward.
        """
        outer, self.capturing, self.value = self.capturing, True, None
        try:
            result = forward()
        finally:
            self.capturing = outer
        value, self.value = self.value, None
        assert value is not None, "no forward pass went through the hook"
        return result, value

    @contextlib.contextmanager
    def splicing(self, splice: Splice | None) -> Iterator[None]:
        """Within, the model goes on with what `splice` makes of the activation."""
        self._splice = splice
        try:
            yield
        finally:
            self._splice = None

    def spliced(self, value: Array) -> Array:
        """The activation that the model goes on with, in the precision of the one it had."""
        return value if self._splice is None else self._splice(value)

    def store(self, value: Array) -> None:
        """Keep the activation, where a capture is going on."""
        if self.capturing:
            self.value = value
