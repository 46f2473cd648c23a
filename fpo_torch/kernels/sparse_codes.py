"""Sparse products for training autoencoders: `fpo_core.sae_training.kernels.Kernels` on torch.

Of b tokens with m features some k·b are not 0. Dense, each of the five products around them costs
2·b·m·d FLOPs; as bags of rows they cost 2·k·b·d, and memory traffic that `embedding_bag` streams.
The tokens are the bags of `decode`, the features those of its transpose `per_feature`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from fpo_core.config import BackendConfig
from fpo_core.sae_training.kernels import Codes, Parameters
from fpo_torch import device as devices
from fpo_torch import ops
from fpo_torch.trainable import to_numpy

_SAMPLE = 61
"""One entry in so many tells where about the largest begin; odd, so that it hits all columns."""
_MARGIN = 1.3


class TorchKernels:
    """See `fpo_core.sae_training.kernels.Kernels`."""

    ops = ops

    def __init__(self, config: BackendConfig) -> None:
        self.device = devices.select_device(config)
        # Of the one dense product; parameters and all else are float32.
        on_cpu = self.device.type == "cpu"
        self.dtype = torch.float32 if on_cpu else devices.select_dtype(config, self.device)

    def array(self, x: np.ndarray) -> Tensor:
        """See `Kernels`."""
        return torch.from_numpy(np.array(x)).to(self.device)

    def numpy(self, x: Tensor) -> np.ndarray:
        """See `Kernels`."""
        return x.cpu().numpy().copy()

    def finish(self, *arrays: Tensor) -> None:
        """See `Kernels`: torch computes at once, or in order."""

    def project(self, z: Tensor, W_enc: Tensor, b_enc: Tensor) -> Tensor:
        """See `Kernels`."""
        if self.dtype == torch.float32:
            return torch.addmm(b_enc, z, W_enc.T)
        return (z.to(self.dtype) @ W_enc.to(self.dtype).T).float() + b_enc

    def choose_batch(self, pre: Tensor, count: int) -> Codes:
        """See `Kernels`."""
        places = _largest(pre, count)
        tokens = places // pre.shape[1]
        return _codes(tokens, places - tokens * pre.shape[1], pre.view(-1)[places], pre)

    def choose_rows(self, pre: Tensor, k: int) -> Codes:
        """See `Kernels`."""
        values, features = torch.topk(pre, k, dim=-1)
        tokens = torch.arange(len(pre), device=pre.device).repeat_interleave(k)
        return _codes(tokens, features.view(-1), torch.relu(values).view(-1), pre)

    def decode(self, codes: Codes, W_dec: Tensor) -> Tensor:
        """See `Kernels`."""
        bounds = _bounds(codes.tokens, codes.count)
        return _bags(codes.features, W_dec, bounds, codes.values)

    def value_gradients(self, codes: Codes, gradient: Tensor, W_dec: Tensor) -> Tensor:
        """See `Kernels`."""
        # The derivative of `decode` by its values, which autograd has as a fused kernel.
        values = codes.values.detach().requires_grad_()
        with torch.enable_grad():
            out = _bags(codes.features, W_dec, _bounds(codes.tokens, codes.count), values)
        return torch.autograd.grad(out, values, gradient)[0]

    def per_feature(self, codes: Codes, rows: Tensor, features: int) -> Tensor:
        """See `Kernels`."""
        order = codes.by_feature
        bounds = _bounds(codes.features[order], features)
        return _bags(codes.tokens[order], rows, bounds, codes.values[order])

    def sums(self, codes: Codes, features: int) -> Tensor:
        """See `Kernels`."""
        order = codes.by_feature
        bounds = _bounds(codes.features[order], features)
        return torch.segment_reduce(codes.values[order], "sum", offsets=bounds)

    def add_rows(self, x: Tensor, rows: Tensor, update: Tensor) -> Tensor:
        """See `Kernels`."""
        return x.index_add_(0, rows, update)

    def unit_rows(self, x: Tensor) -> Tensor:
        """See `Kernels`."""
        return x.div_(x.norm(dim=-1, keepdim=True).clamp_(min=1e-12))

    def adam(self, parameters: Parameters) -> "TorchAdam":
        """See `Kernels`."""
        return TorchAdam(parameters)


class TorchAdam:
    """See `fpo_core.sae_training.kernels.Adam`; steps in place."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._adam = torch.optim.Adam(list(parameters.values()), fused=True)

    def step(self, parameters: Parameters, gradients: Parameters, rate: float) -> Parameters:
        """See `Adam`."""
        for name, weight in parameters.items():
            weight.grad = gradients[name]
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        self._adam.zero_grad()
        return parameters

    def state(self) -> dict[str, np.ndarray]:
        """See `Adam`."""
        empty: dict[str, np.ndarray] = {}
        for name, weight in self._parameters.items():
            moments: dict[str, Any] = self._adam.state[weight]
            for key, torch_name in (("m", "exp_avg"), ("v", "exp_avg_sq")):
                moment = moments.get(torch_name, torch.zeros_like(weight))
                empty[f"{key}.{name}"] = to_numpy(moment).copy()
        return empty

    def load_state(self, state: Mapping[str, np.ndarray], steps: int) -> None:
        """See `Adam`."""
        for name, weight in self._parameters.items():
            device = weight.device
            moments: dict[str, Any] = {
                "step": torch.tensor(float(steps), device=device),
                "exp_avg": torch.from_numpy(np.array(state[f"m.{name}"])).to(device),
                "exp_avg_sq": torch.from_numpy(np.array(state[f"v.{name}"])).to(device),
            }
            self._adam.state[weight] = moments


def _codes(tokens: Tensor, features: Tensor, values: Tensor, pre: Tensor) -> Codes:
    order = torch.argsort(features, stable=True)
    return Codes(tokens, features, values, len(pre), order)


def _bounds(sorted_bags: Tensor, count: int) -> Tensor:
    """Where each of `count` bags begins, and the end: (count + 1,)."""
    bags = torch.arange(count + 1, device=sorted_bags.device)
    return torch.searchsorted(sorted_bags.contiguous(), bags)


def _bags(rows: Tensor, table: Tensor, bounds: Tensor, weights: Tensor) -> Tensor:
    return embedding_bag(
        rows, table, bounds, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _largest(pre: Tensor, count: int) -> Tensor:
    """Places of the `count` largest positive entries of (b, m), ascending."""
    flat = pre.reshape(-1)
    if pre.device.type != "cpu":
        values, places = torch.topk(flat, min(count, len(flat)), sorted=False)
        return places[values > 0].sort().values
    # On a CPU, finding candidates over a bound from a sample is 10 times faster than top-k of all.
    entries = flat.numpy()
    sample = entries[::_SAMPLE]
    rank = min(len(sample), int(_MARGIN * count / _SAMPLE) + 50)
    bound = max(0.0, float(np.partition(sample, len(sample) - rank)[len(sample) - rank]))
    places = np.flatnonzero(entries > bound)
    if len(places) < count and bound > 0:
        places = np.flatnonzero(entries > 0)
    if len(places) > count:
        values = entries[places]
        top = np.argpartition(values, len(values) - count)[len(values) - count :]
        places = np.sort(places[top])
    return torch.from_numpy(places)
