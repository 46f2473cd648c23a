"""Loss and gradients of one step, in closed form.

z (b, d) are centred activations of mean norm √d; h = z W_encᵀ + b_enc; f the batch's k·b largest
positive h (BatchTopK, arXiv 2412.06410), or each token's k largest; ẑ = f W_dec + b_dec.

    loss = Σ‖z − ẑ‖² / Σ‖z − mean z‖²  +  1/32 · min(1, dead/k) · aux
    aux  = Σ‖r − ê‖² / Σ‖r − mean r‖²,  r = z − ẑ without gradient,
           ê = the k largest h of *dead* features, through W_dec     (AuxK, arXiv 2406.04093)

With nested widths (Matryoshka, arXiv 2503.17547) the first term is the mean over prefixes of the
features. Codes stay sparse: of the products with an m wide array only h is dense.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fpo_core.arrays.ops import Array
from fpo_core.backend.process_group import Group
from fpo_core.sae_training.kernels import Codes, Kernels, Parameters
from fpo_core.sae_training.recipe import Recipe

AUX = 1 / 32


@dataclass(frozen=True)
class Step:
    """What a step came to, over all processes: arrays of the framework."""

    gradients: Parameters
    loss: Array
    """(), the first term: the share of the batch's variance that is unexplained."""
    fired: Array
    """How often each feature fired, (m,)."""
    threshold: Array
    """(), the smallest value that was chosen."""


def compute_step(
    kernels: Kernels,
    parameters: Parameters,
    z: Array,
    recipe: Recipe,
    dead: Array | None,
    group: Group,
) -> Step:
    """Gradients at this process's tokens z (b, d), summed over the group's; `dead` are indices."""
    xp, total = kernels.ops, _total(group)
    pre = kernels.project(z, parameters["W_enc"], parameters["b_enc"])
    codes = choose(kernels, pre, recipe, group)
    variance = _variance(z, total)
    firing = xp.as_float(codes.values > 0)
    error, gradients = _reconstruction(kernels, parameters, z, codes, recipe, 2.0 / variance)
    if dead is not None:
        residual = z - error
        scale = AUX * min(1.0, dead.shape[0] / recipe.k) / _variance(residual, total)
        gradients = _with_aux(
            kernels, gradients, parameters, (z, residual, pre), recipe.k, dead, scale
        )
    missed = z - error
    positive = xp.where(codes.values > 0, codes.values, float("inf"))
    # Where no feature of a small batch is active, torch has no codes, of which there is no minimum.
    smallest = positive.min() if len(positive) else variance * 0 + float("inf")
    return Step(
        gradients={name: total(gradient) for name, gradient in gradients.items()},
        loss=total(_squares(missed)) / variance,
        fired=total(kernels.sums(codes.valued(firing), recipe.d_sae)),
        threshold=smallest,
    )


def choose(kernels: Kernels, pre: Array, recipe: Recipe, group: Group) -> Codes:
    """The codes of a batch, of which `pre` (b, m) is this process's share."""
    if recipe.architecture == "topk":
        return kernels.choose_rows(pre, recipe.k)
    count = recipe.k * pre.shape[0]
    if group.size == 1:
        return kernels.choose_batch(pre, count)
    # The k·b largest of all processes are among the k·b largest of each.
    sizes = np.zeros(group.size, np.float32)
    sizes[group.rank] = pre.shape[0]
    sizes = group.sum(sizes)
    count = recipe.k * int(sizes.sum())
    codes = kernels.choose_batch(pre, min(count, pre.shape[0] * pre.shape[1]))
    candidates = np.zeros((group.size, count), np.float32)
    values = kernels.numpy(codes.values)
    candidates[group.rank, : len(values)] = values
    ranked = np.sort(group.sum(candidates), axis=None)
    chosen = kernels.ops.as_float(codes.values >= float(ranked[-count]))
    return codes.scaled(chosen)


def _reconstruction(
    kernels: Kernels,
    parameters: Parameters,
    z: Array,
    codes: Codes,
    recipe: Recipe,
    scale: Array,
) -> tuple[Array, Parameters]:
    """ẑ (b, d) by all features, and the gradients of the first term of the loss.

    `scale` is 2 / Σ‖z − mean z‖², which turns ẑ − z into the gradient by ẑ.
    """
    xp, W_dec = kernels.ops, parameters["W_dec"]
    parts = _segments(xp, codes, recipe.prefixes)
    outputs, out = [], parameters["b_dec"] + z * 0
    for part in parts:
        out = out + kernels.decode(part, W_dec)
        outputs.append(out)
    to_outputs = [(output - z) * (scale / len(outputs)) for output in outputs]
    # A feature reconstructs in its own prefix and in every longer one.
    to_parts = [sum(to_outputs[i + 1 :], to_outputs[i]) for i in range(len(to_outputs))]
    to_W = to_values = None
    for part, gradient in zip(parts, to_parts, strict=True):
        values = kernels.value_gradients(part, gradient, W_dec) * xp.as_float(part.values > 0)
        columns = kernels.per_feature(part, gradient, recipe.d_sae)
        to_values = values if to_values is None else to_values + values
        to_W = columns if to_W is None else to_W + columns
    to_pre = codes.valued(to_values)
    gradients = {
        "W_enc": kernels.per_feature(to_pre, z, recipe.d_sae),
        "b_enc": kernels.sums(to_pre, recipe.d_sae),
        "W_dec": to_W,
        "b_dec": to_parts[0].sum(0),
    }
    return outputs[-1], gradients


def _segments(xp: object, codes: Codes, prefixes: tuple[int, ...]) -> list[Codes]:
    """The codes of each stretch of features between two nested widths; the rest have value 0."""
    if len(prefixes) == 1:
        return [codes]
    inside = (
        (codes.features >= low) & (codes.features < high) for low, high in pairwise((0, *prefixes))
    )
    return [codes.scaled(xp.as_float(part)) for part in inside]  # pyright: ignore


def _with_aux(
    kernels: Kernels,
    gradients: Parameters,
    parameters: Parameters,
    arrays: tuple[Array, Array, Array],
    k: int,
    dead: Array,
    scale: Array,
) -> Parameters:
    """The gradients with those of AuxK's term: dense, for few features are dead."""
    xp, (z, residual, pre) = kernels.ops, arrays
    h, W = pre[:, dead], parameters["W_dec"][dead]
    active = h > 0
    if dead.shape[0] > k:
        active = active & (h >= xp.kth_largest(h, k))
    active = xp.as_float(active)
    features = h * active
    to_output = (features @ W - residual) * (2.0 * scale)
    to_h = (to_output @ W.T) * active
    updates = {"W_enc": to_h.T @ z, "b_enc": to_h.sum(0), "W_dec": features.T @ to_output}
    added = {
        name: kernels.add_rows(gradients[name], dead, update) for name, update in updates.items()
    }
    return gradients | added


def _variance(x: Array, total: Callable[[Array], Array]) -> Array:
    """Σ‖x − mean x‖² over the tokens of all processes, at least a tiny number: ()."""
    count = total((x[:, 0] * 0 + 1).sum())
    mean = total(x.sum(0)) / count
    return total(_squares(x - mean)) + 1e-12


def _squares(x: Array) -> Array:
    """Σ‖x‖²; rows first, for a sum of all entries at once is off by 1e-3 on MLX's CPU."""
    return (x * x).sum(-1).sum()


def _total(group: Group) -> Callable[[Array], Array]:
    return (lambda x: x) if group.size == 1 else group.sum_native
