"""A model split among processes by FSDP2 (`fully_shard`), gathered one block at a time.

Each block is a unit, and so is the final norm. Of each weight a process holds the rows [start,
stop). A unit's hooks gather its weights in front of its forward and backward pass, free them behind
it, and sum its gradients into each process's rows. Embeddings and output layer are in no unit: they
stay in rows (`vocabulary`). What a model has besides, such as GPT-2's positions, is the root unit.

The model is made without memory and split; then each process reads its rows from the files.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from transformers import PreTrainedModel

from fpo_core.backend.parts import Setup
from fpo_core.backend.process_group import lost_process
from fpo_core.errors import BackendError, ModelError
from fpo_core.io.file_array import FileArray
from fpo_core.io.reader import open_safetensors
from fpo_core.io.shards import Shard
from fpo_core.models.folder import ModelFolder, damaged
from fpo_torch.sharded.vocabulary import Vocabulary, rows_here

ResultT = TypeVar("ResultT")
_ADAPTER = ".lora_"
_ADAPTED = ".base_layer."
"""What PEFT has in the names of its own weights, and of those under its own."""


class Sharding:
    """A model's units, and the rows of its weights that are here."""

    def __init__(
        self,
        model: PreTrainedModel,
        units: Iterable[nn.Module | None],
        device: torch.device,
        setup: Setup,
    ) -> None:
        """Split a model without memory among `setup.shard`, and read its rows.

        Of `units`, its blocks and final norm, each is gathered by itself.

        Adapters stay as they are. Raises BackendError where torch or the device cannot, ModelError
        where the files name or shape weights in another way than transformers.
        """
        assert setup.shard is not None, "a group to split the model among"
        if not hasattr(FSDPModule, "reset_iter_state"):
            raise BackendError(
                f"shard is set, but torch {torch.__version__} is too old for it: install 2.13 or "
                "later, or leave shard out"
            )
        if setup.cpu_offload and device.type != "cuda":
            raise BackendError(
                f"cpu_offload is set on {device.type}, where parts of a model lie in the memory of "
                "the CPU anyway: leave it out, or use a CUDA device"
            )
        self.root, self.group = model, setup.shard
        self._buffers = _buffers_of(model, device)
        mesh = init_device_mesh(device.type, (self.group.size,))
        policy = CPUOffloadPolicy() if setup.cpu_offload else OffloadPolicy()
        self.vocabulary = Vocabulary(model, mesh, self.group, device, setup.step.logits_budget)
        for module in (*units, model):
            if module is None:
                continue
            unit = fully_shard(
                module,
                mesh=mesh,
                reshard_after_forward=True,
                offload_policy=policy,
                ignored_params=self.vocabulary.weights,
            )
            # Each process weighs its pairs as a share of the whole batch: their gradients add up.
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)
        model.to_empty(device="cpu" if setup.cpu_offload else device)
        with ModelFolder(setup.folder, "").unchanged():
            self._load(_Stored(setup.folder, f"{model.base_model_prefix}."))
        with torch.no_grad():
            self.run(lambda: None)  # FSDP now lays the rows out as it wants them

    def _load(self, stored: "_Stored") -> None:
        for module, name, buffer in self._buffers:
            module._buffers[name] = buffer
            if name not in module._non_persistent_buffers_set:
                raise ModelError(
                    f"this {type(self.root).__name__} has the buffer {name!r} in its files, which "
                    "shard does not read: leave shard out"
                )
        for name, weight in self.root.named_parameters():
            if _ADAPTER not in name:
                rows = stored.array(name.replace(_ADAPTED, "."), tuple(weight.shape))
                # Through float32: torch takes no bfloat16 from NumPy.
                local_rows(weight).copy_(torch.from_numpy(rows[self.slice_of(weight)]))

    def slice_of(self, weight: Tensor) -> slice:
        """The rows of a weight that are here."""
        return rows_here(len(weight), self.group)

    def shard_of(self, weight: Tensor, local: Tensor) -> Shard:
        """These rows of a weight, or of something of its shape, in float32 on the host."""
        rows = local.detach().float().cpu().numpy().copy()
        return Shard(rows, self.slice_of(weight).start, tuple(weight.shape))

    def shards(self) -> dict[str, Shard]:
        """The rows of all weights."""
        return {n: self.shard_of(w, local_rows(w)) for n, w in self.root.named_parameters()}

    def run(self, call: Callable[[], ResultT]) -> ResultT:
        """The result of `call` as the root unit's forward pass, with that unit's weights in place.

        So `call` may run parts of the model in any order, a block as often as it likes. A gradient
        begins at a tensor that it returns, alone or in a tuple.
        """

        def forward() -> ResultT:
            del vars(self.root)["forward"]  # what `call` runs of the root is its own
            return call()

        vars(self.root)["forward"] = forward
        try:
            with self.watching():
                return self.root()
        except Exception:
            self.root.reset_iter_state()  # pyright: ignore[reportCallIssue]
            raise
        finally:
            vars(self.root).pop("forward", None)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Failures of an exchange within raise LostProcessError."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, dist.DistError) or "gloo/transport" in str(error):
                raise lost_process(error) from None
            raise


class _Stored:
    """The weights in a model's files."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self._prefix = prefix
        files = [open_safetensors(path, damaged) for path in ModelFolder(folder, "").weight_files]
        self._arrays = {name: file for file in files for name in file.entries}

    def array(self, name: str, shape: tuple[int, ...]) -> FileArray:
        """A weight by its name in transformers' model, or that without the model's own prefix."""
        names = (name, name.removeprefix(self._prefix))
        stored = next((each for each in names if each in self._arrays), None)
        array = None if stored is None else self._arrays[stored].floats(stored)
        if array is None or array.shape != shape:
            found = "has no such weight" if array is None else f"has the shape {array.shape}"
            raise ModelError(
                f"shard reads weights as transformers names them, but of {name!r} {shape} the "
                f"model {found}: leave shard out"
            )
        return array


def local_rows(weight: Any) -> Tensor:
    """The rows of a sharded weight, or of its gradient, that are here; they share its memory."""
    with torch.no_grad():
        return weight.to_local()


def modules_with_weights(model: nn.Module) -> Iterator[nn.Module]:
    """The modules of a model, each while its weights are in place."""
    inner: FSDPModule | None = None
    for module in model.modules():
        if isinstance(module, FSDPModule):
            if inner is not None:
                inner.reshard()
            module.unshard()
            inner = None if module is model else module
        yield module
    for unit in (inner, model):
        if isinstance(unit, FSDPModule):
            unit.reshard()


@torch.no_grad()
def _buffers_of(
    model: PreTrainedModel, device: torch.device
) -> list[tuple[nn.Module, str, Tensor]]:
    """The buffers of a model without memory, such as rotary tables, as they begin."""
    made: list[tuple[nn.Module, str, Tensor]] = []
    for module in model.modules():
        if module._buffers:
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = torch.empty_like(buffer, device=device)
            model._init_weights(module)
            made += [(module, name, b) for name, b in module.named_buffers(recurse=False)]
    return made
