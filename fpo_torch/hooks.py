"""Reading the activation at a hook with forward hooks."""

from typing import Any

from torch import nn

from fpo_core.backend.base_tap import BaseTap


class Tap(BaseTap):
    """Captures the activation at a site of one block; see `BaseTap`."""

    def __init__(self, block: nn.Module, site: str) -> None:
        super().__init__(block, site)
        if self._reads_output:
            self._module.register_forward_hook(self._store_output)
        else:
            self._module.register_forward_pre_hook(self._store_input, with_kwargs=True)

    def _store_output(self, module: nn.Module, args: Any, output: Any) -> None:
        del module, args
        self.store(output[0] if isinstance(output, tuple) else output)

    def _store_input(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        del module
        self.store(args[0] if args else kwargs["hidden_states"])
