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

    def _store_output(self, module: nn.Module, args: Any, output: Any) -> Any:
        del module, args
        value = output[0] if isinstance(output, tuple) else output
        self.store(value)
        if self._splice is None:
            return None  # to forward hooks: nothing is changed
        other = self.spliced(value).to(value.dtype)
        return (other, *output[1:]) if isinstance(output, tuple) else other

    def _store_input(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        del module
        value = args[0] if args else kwargs["hidden_states"]
        self.store(value)
        if self._splice is None:
            return None
        other = self.spliced(value).to(value.dtype)
        return ((other, *args[1:]), kwargs) if args else ((), kwargs | {"hidden_states": other})
