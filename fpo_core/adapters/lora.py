"""LoRA and DoRA adapters without a framework: canonical names, adapted modules, initial weights.

Canonical names are `<block>.<module>.lora_A` of shape (rank, in) and `.lora_B` of shape
(out, rank), such as `3.self_attn.q_proj.lora_A`, and for DoRA `.lora_magnitude_vector` of shape
(out,): PEFT's names and orientation, free of a family's prefix.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fpo_core.adapters.virtual_tokens import VirtualTokens, is_virtual
from fpo_core.config import AdapterConfig
from fpo_core.errors import ModelError

MAGNITUDE = "lora_magnitude_vector"
_EXPERTS = {"experts", "switch_mlp"}
_MIXTURE = {"gate", "router", *_EXPERTS}
"""Names of the parts of a mixture of experts in transformers' models and mlx-lm's."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA or DoRA adapter: its settings, and its weights by canonical name."""

    rank: int
    scale: float
    dropout: float
    num_layers: int
    """The last blocks, which include all adapted ones; −1 is all blocks."""
    weights: dict[str, np.ndarray]

    @property
    def fine_tune_type(self) -> Literal["lora", "dora"]:
        """DoRA where there are magnitudes."""
        return "dora" if any(name.endswith(MAGNITUDE) for name in self.weights) else "lora"

    def places(self) -> list[str]:
        """The adapted modules of each block, such as `3.self_attn.q_proj`, in order."""
        places = {place_of(name) for name in self.weights}
        return sorted(places, key=lambda place: (block_of(place), place))

    def modules(self) -> list[str]:
        """The adapted modules, relative to a block, sorted."""
        return sorted({place.split(".", 1)[1] for place in self.places()})

    def blocks(self) -> list[int]:
        """The adapted blocks, ascending."""
        return sorted({block_of(place) for place in self.places()})

    @property
    def is_regular(self) -> bool:
        """Whether every adapted block has the same modules adapted."""
        return len(self.places()) == len(self.blocks()) * len(self.modules())

    @property
    def left_out(self) -> int:
        """Modules that get an adapter for the others' sake and have none in this one."""
        return self.num_layers * len(self.modules()) - len(self.places())

    def shape(self) -> AdapterConfig:
        """The settings of a policy that holds it, less its dropout."""
        return AdapterConfig(
            fine_tune_type=self.fine_tune_type,
            num_layers=self.num_layers,
            rank=self.rank,
            scale=self.scale,
            target_modules=tuple(self.modules()),
        )


def fit(weights: Mapping[str, np.ndarray], rank: int, factor: float) -> dict[str, np.ndarray]:
    """Weights padded with zeros to a higher or equal rank, B times `factor`.

    Names may be canonical or that of the matrix alone.
    """
    # Zero rows of A and zero columns of B leave the product B A unchanged.
    fitted = dict(weights)
    for name, weight in weights.items():
        if name.endswith("lora_A"):
            fitted[name] = np.pad(weight, ((0, rank - weight.shape[0]), (0, 0)))
        elif name.endswith("lora_B"):
            padded = np.pad(weight, ((0, 0), (0, rank - weight.shape[1])))
            fitted[name] = padded * np.float32(factor)
    return fitted


def common_shape(
    adapters: Sequence[Adapter | VirtualTokens],
) -> tuple[AdapterConfig, list[dict[str, np.ndarray]]]:
    """The smallest shape that holds every adapter of a model, and the weights of each in it.

    A module that an adapter does not adapt has no weights: its initial weights add nothing. Raises
    ModelError for adapters of two kinds: DoRA's magnitudes depend on the model's weights.
    """
    kinds = {adapter.fine_tune_type for adapter in adapters}
    if len(kinds) > 1:
        raise ModelError(
            f"one adapter is {' and the other '.join(sorted(kinds))}, which no single shape holds: "
            "merge one into the model, and give the result as base"
        )
    virtual = [adapter for adapter in adapters if isinstance(adapter, VirtualTokens)]
    if virtual:
        return virtual[0].shape(), [adapter.weights for adapter in virtual]
    return _common_lora([adapter for adapter in adapters if isinstance(adapter, Adapter)])


def _common_lora(adapters: Sequence[Adapter]) -> tuple[AdapterConfig, list[dict[str, np.ndarray]]]:
    kind = adapters[0].fine_tune_type
    rank = max(adapter.rank for adapter in adapters)
    scale = max(adapter.scale for adapter in adapters)
    shape = AdapterConfig(
        fine_tune_type=kind,
        num_layers=max(adapter.num_layers for adapter in adapters),
        rank=rank,
        scale=scale,
        target_modules=tuple(sorted({name for a in adapters for name in a.modules()})),
    )
    # The scales differ, so B takes the ratio: scale · (B · s / scale) A = s · B A.
    return shape, [fit(a.weights, rank, a.scale / scale) for a in adapters]


def place_of(name: str) -> str:
    """The module that a canonical weight belongs to: `3.q_proj` of `3.q_proj.lora_A`."""
    return name.rsplit(".", 1)[0]


def block_of(name: str) -> int:
    """The block of a canonical name."""
    return int(name.split(".", 1)[0])


def matrices_of(fine_tune_type: str) -> tuple[str, ...]:
    """The names of an adapted module's weights."""
    return ("lora_A", "lora_B", MAGNITUDE) if fine_tune_type == "dora" else ("lora_A", "lora_B")


def row_norms(weight: np.ndarray) -> np.ndarray:
    """Norms of a matrix's rows, (out, in) -> (out,) float32, summed in float64."""
    return np.sqrt(np.einsum("oi,oi->o", weight, weight, dtype=np.float64)).astype(np.float32)


def select_blocks(count: int, num_layers: int) -> list[int]:
    """The last `num_layers` of `count` blocks, or all for −1; ModelError where there are fewer."""
    if num_layers > count:
        raise ModelError(
            f"num_layers is {num_layers} but the model has {count} blocks: give at most {count}, "
            "or -1 for all"
        )
    return list(range(count))[0 if num_layers < 0 else count - num_layers :]


def linear_of_all(blocks: Iterable[Sequence[str]]) -> list[str]:
    """The linear layers that any of some blocks has, once each: blocks of a hybrid model differ."""
    return list(dict.fromkeys(name for linear in blocks for name in linear))


def select_targets(linear: list[str], targets: tuple[str, ...] | None) -> list[str]:
    """The linear layers of a block that get adapters: all but those of mixtures of experts (routers
    and single experts), or those whose name ends in a target.

    Raises ModelError for a target that matches none.
    """
    if targets is None:
        # transformers stores routers as bare parameters, and both libraries all experts in one
        # array: neither is a linear layer that PEFT and mlx-lm alike could adapt.
        return [name for name in linear if not _MIXTURE & set(name.split("."))]
    for target in targets:
        if not any(("." + name).endswith("." + target) for name in linear):
            raise ModelError(
                f"target_modules names {target!r}, but the linear layers of a block are "
                f"{', '.join(linear)}"
            )
    ends = tuple("." + target for target in targets)
    return [name for name in linear if ("." + name).endswith(ends)]


def frozen_mixture(modules: Iterable[str], targets: Sequence[str]) -> str | None:
    """What of a mixture of experts adapters on `targets` leave frozen; None in a dense block.

    `modules` are the paths of the modules of its blocks.
    """
    if not any(_EXPERTS & set(path.split(".")) for path in modules):
        return None
    routed = any(_MIXTURE & set(target.split(".")) for target in targets)
    router = "" if routed else " and routers"
    names = ", ".join(sorted(target.rpartition(".")[2] for target in targets))
    return (
        f"the model is a mixture of experts: adapters are on {names}, its experts{router} stay "
        "frozen"
    )


def initial_weights(
    shapes: Mapping[str, tuple[int, ...]], seed: int, base: Callable[[str], np.ndarray]
) -> dict[str, np.ndarray]:
    """Initial weights by canonical name: an adapter that changes nothing.

    `base` returns the float32 weight (out, in) of the adapted layer, such as `3.self_attn.q_proj`;
    DoRA's magnitudes start as the norms of its rows.
    """
    return {
        name: row_norms(base(place_of(name)))
        if name.endswith(MAGNITUDE)
        else initial_lora(name, shape, seed)
        for name, shape in shapes.items()
    }


def initial_lora(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """An initial matrix: B is 0, A uniform in ±1/√in, as PEFT and mlx-lm initialise them."""
    if name.endswith("lora_B"):
        return np.zeros(shape, np.float32)
    bound = 1 / np.sqrt(shape[1])
    # NumPy's generator, seeded by name: the same on every framework, and for any set of modules.
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return generator.uniform(-bound, bound, shape).astype(np.float32)


def check_shapes(weights: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ModelError where names or shapes of arrays are not the expected ones."""
    missing = sorted(set(expected) - set(weights))
    extra = sorted(set(weights) - set(expected))
    if missing or extra:
        raise ModelError(
            f"the weights do not fit what this run trains: {len(missing)} are missing"
            f"{_first(missing)}, {len(extra)} are not expected{_first(extra)}; give the model and "
            "the adapter options that they were trained with"
        )
    for name, shape in expected.items():
        # Virtual tokens may be any number: of none, the model is its reference.
        free = is_virtual(name)
        if tuple(weights[name].shape)[free:] != shape[free:]:
            raise ModelError(
                f"the weight {name} has shape {tuple(weights[name].shape)}, expected {shape}: "
                "it belongs to another model or rank"
            )


def _first(names: list[str]) -> str:
    return f" (such as {names[0]})" if names else ""
