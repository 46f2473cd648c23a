"""The backends, one entry each: everything that the rest of the program must know to use one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A backend's package, what it depends on, and the classes that it must provide."""

    package: str
    """Import name of the package that holds the classes."""
    requires: tuple[str, ...]
    """Import names without which the backend cannot be used."""
    libraries: tuple[str, ...]
    """Distributions whose versions a bug report should state."""
    install: str
    """How to get them."""
    launcher: str
    """The program that starts several processes of one run."""
    rank_variable: str
    """Environment variable in which the launcher numbers the processes, from 0."""
    size_variable: str | None = None
    """Environment variable with their count; None where the rank alone shows a launch."""
    unsharded: str | None = None
    """What a backend without `shard` has for models too large for a process; None where it has."""
    samplers: tuple[str, ...] = ()
    """Libraries beside its own that can sample: `<Name>Sampler` in `<package>.<name>_sampling`."""
    prefix: str
    """How the names of its classes begin: `<prefix>Policy` in `<package>.policy`, `<prefix>Reader`
    in `.activation_reader`, `<prefix>Group` in `.process_group`, `<prefix>Kernels` in
    `.kernels.sparse_codes`; `.device` has `select_device`, `.doctor` has `describe`, `calculator`
    and `products`."""


BACKENDS = {
    "mlx": Backend(
        package="fpo_mlx",
        requires=("mlx", "mlx_lm"),
        libraries=("mlx", "mlx-lm"),
        install="pip install 'fpo-mlx[mlx]'",
        launcher="mlx.launch",
        rank_variable="MLX_RANK",
        unsharded="adapters on a quantised model, grad_checkpoint, or a Mac with more memory",
        prefix="Mlx",
    ),
    "torch": Backend(
        package="fpo_torch",
        requires=("torch", "peft"),
        libraries=("torch", "peft"),
        install="pip install 'fpo-mlx[torch]'",
        launcher="torchrun",
        rank_variable="RANK",
        size_variable="WORLD_SIZE",
        samplers=("vllm",),
        prefix="Torch",
    ),
}
"""Every backend by name. A new one is an entry here and its package."""

# A type checker cannot follow a Literal made from a table; for it, a name is any text. At run time
# the settings and the command line read the choices off this Literal.
if TYPE_CHECKING:
    BackendName = str
else:
    BackendName = Literal[("auto", *BACKENDS)]
