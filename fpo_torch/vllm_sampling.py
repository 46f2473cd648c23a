"""Sampling with vLLM on CUDA, from a copy of the model in this process.

Written to the interface of vLLM 0.33 and tested against a stand-in for it: it has not run on a GPU
yet.
"""

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from fpo_core.adapters.lora import Adapter
from fpo_core.adapters.writer import save_adapter
from fpo_core.backend.draws import seeds
from fpo_core.backend.policy import OnTokens, Sampling
from fpo_core.config import AdapterConfig, ModelConfig
from fpo_core.errors import BackendError, ModelError, shorten
from fpo_core.models.bounds import Bounds
from fpo_core.models.folder import ModelFolder
from fpo_torch.device import select_device, select_dtype

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values of `max_lora_rank`."""
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # requests are then batched in a fixed order
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is the result's
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Read when vLLM is imported; what the user has set stays."""


class VllmSampler:
    """`fpo_core.backend.policy.Sampler` on a model folder, with or without a LoRA adapter.

    The model is loaded at the first sample, for sequences of at most `longest` tokens, into the
    share `memory` of the GPU. `shape` is that of the adapters to come. Raises BackendError where
    there is no CUDA device or no vLLM, ModelError for adapters other than LoRA.
    """

    def __init__(
        self,
        model: ModelFolder,
        config: ModelConfig,
        memory: float,
        shape: AdapterConfig | None,
        longest: int,
    ) -> None:
        device = select_device(config)
        if device.type != "cuda":
            raise BackendError(
                f"sampler is vllm, which needs a CUDA device, but the device is {device.type}: "
                "leave sampler out"
            )
        if shape is not None and shape.fine_tune_type != "lora":
            raise ModelError(
                f"sampler is vllm, which opens LoRA adapters alone, but the adapter is "
                f"{shape.fine_tune_type}: leave sampler out"
            )
        self._vllm, self._requests = _import("vllm"), _import("vllm.lora.request")
        self._model, self._shape, self._bounds = model, shape, Bounds.of(model, config)
        limit = self._bounds.limit
        self._options: dict[str, Any] = {
            "model": str(model.path),
            "trust_remote_code": config.trust_remote_code,
            "dtype": str(select_dtype(config, device)).removeprefix("torch."),
            "max_model_len": longest if limit is None else min(longest, limit.tokens),
            "gpu_memory_utilization": memory,
            "generation_config": "vllm",  # nothing of the model's own habits
            "skip_tokenizer_init": True,
        }
        if shape is not None:
            rank = next((rank for rank in _RANKS if rank >= shape.rank), shape.rank)
            self._options |= {"enable_lora": True, "max_lora_rank": rank}
        self._engine: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._adapter: Any = None
        self._count = 0

    def holding(self, weights: Mapping[str, np.ndarray]) -> Self:
        """Sample with an adapter's weights, by canonical name, from here on."""
        assert self._shape is not None, "opened without the shape of an adapter"
        folder, shape = tempfile.TemporaryDirectory(prefix="fpo-vllm-"), self._shape
        adapter = Adapter(shape.rank, shape.scale, 0.0, shape.num_layers, dict(weights))
        path, layout = Path(folder.name), self._model.layout
        save_adapter(path, adapter, base_model=self._model.name, layout=layout, to="peft")
        # vLLM caches adapters by number, and prompts by the adapter's name: both are new each time.
        self._count += 1
        numbered = f"fpo-{self._count}", self._count
        self._adapter = self._requests.LoRARequest(*numbered, str(path))
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = folder
        return self

    def generate(
        self,
        prompts: list[np.ndarray],
        sampling: Sampling,
        on_tokens: OnTokens | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        """See `fpo_core.backend.policy.Sampler`; `on_tokens` hears of all tokens at the end."""
        rooms = self._bounds.rooms(prompts, sampling.max_tokens)
        with _explained():
            if self._engine is None:
                self._engine = self._vllm.LLM(**self._options)
            parameters = [
                self._vllm.SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=-1,
                    seed=seed,
                    max_tokens=room,
                    stop_token_ids=list(sampling.stop),
                    ignore_eos=True,  # where it ends a completion it is among those
                    detokenize=False,
                )
                for seed, room in zip(seeds(prompts, sampling.seed, numbers), rooms, strict=True)
            ]
            asked = [{"prompt_token_ids": prompt.tolist()} for prompt in prompts]
            options = {"use_tqdm": False, "lora_request": self._adapter}
            outputs = self._engine.generate(asked, parameters, **options)
            sampled = [np.array(out.outputs[0].token_ids, np.int32) for out in outputs]
        if on_tokens is not None:
            for at in range(max(map(len, sampled), default=0)):
                on_tokens({i: int(ids[at]) for i, ids in enumerate(sampled) if at < len(ids)})
        return sampled


def _import(name: str) -> Any:
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendError(
            f"sampler is vllm, which cannot be imported here ({shorten(error)}): pip install "
            "'fpo-mlx[vllm]', or leave sampler out"
        ) from None


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """An error of vLLM's in a sentence."""
    try:
        yield
    except Exception as error:
        raise BackendError(
            f"vLLM failed ({shorten(error)}): where that is about memory change vllm_memory, else "
            "leave sampler out"
        ) from error
