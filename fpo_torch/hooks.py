"""Reading the activation at a hook with forward hooks."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fpo_core.sae.tap_points import tap_point


class Tap:
    """Reads the activation at a site of one block, during a forward pass that it watches."""

    def __init__(self, block: nn.Module, site: str) -> None:
        modules = dict(block.named_modules())
        point = tap_point(site, modules.__contains__)
        self.inside = None if point.path == "" else block
        """The block, where the place is inside it and not at its ends."""
        self._watching = False
        self._value: Tensor | None = None
        module = modules[point.path]
        if point.end == "output":
            module.register_forward_hook(self._keep_output)
        else:
            module.register_forward_pre_hook(self._keep_input, with_kwargs=True)

    def capture(self, forward: Callable[[], Any]) -> tuple[Any, Tensor]:
        """Run `forward`; return its result and the activation of that pass, (n, t, d_in).

        Hooks fire again where gradient checkpointing repeats the block in backward: by then the
        watch is over, and the tensor of the first pass, which is in the graph, was handed out.
        """
        self._watching, self._value = True, None
        try:
            result = forward()
        finally:
            self._watching = False
        value, self._value = self._value, None
        assert value is not None, "no forward pass went through the hook"
        return result, value

    def _keep(self, value: Tensor) -> None:
        if self._watching:
            self._value = value

    def _keep_output(self, module: nn.Module, args: Any, output: Any) -> None:
        del module, args
        self._keep(output[0] if isinstance(output, tuple) else output)

    def _keep_input(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        del module
        self._keep(args[0] if args else kwargs["hidden_states"])
