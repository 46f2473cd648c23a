"""A stand-in for vLLM: what is used of its interface, with its names and limits, on our policy.

Signatures are those of vLLM 0.33, which `tests/cli/test_vllm_sampling.py` compares where it is
installed. As vLLM does, it loads an adapter once for each number, keeps it, and samples by seeds.
"""

import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from fpo_core.adapters.folders import load_any_adapter
from fpo_core.adapters.lora import Adapter
from fpo_core.backend.policy import Sampling
from fpo_core.config import AdapterConfig, ModelConfig
from fpo_core.models.folder import ModelFolder
from tests.backends.support import open_policy

LIMITS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(kw_only=True)
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    detokenize: bool = True

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= -1):
            raise ValueError("temperature, top_p or top_k is out of its bounds")
        if self.max_tokens is None or self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise OverflowError("seeds are of 64 bits, with a sign")


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""

    def __post_init__(self) -> None:
        if self.lora_int_id < 1:
            raise ValueError(f"id must be > 0, got {self.lora_int_id}")
        assert self.lora_path, "lora_path cannot be empty"


class LLM:
    """Options after `dtype` are of `EngineArgs`, to which vLLM passes them on."""

    opened: list["LLM"]
    fails: str | None

    def __init__(
        self,
        model: str,
        *,
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        gpu_memory_utilization: float = 0.92,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        max_model_len: int | None = None,
        generation_config: str = "auto",
        enable_lora: bool = False,
        max_lora_rank: int = 16,
    ) -> None:
        # Batches in a fixed order, and nothing of its own on stdout.
        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
        assert os.environ["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"
        assert dtype in ("float32", "bfloat16")
        assert generation_config == "vllm"
        assert max_lora_rank in LIMITS
        assert skip_tokenizer_init, "samples come as ids"
        if type(self).fails is not None:
            raise ValueError(type(self).fails)
        config = ModelConfig(model=model, device="cpu", dtype=dtype)
        self.memory, self.longest = gpu_memory_utilization, max_model_len
        self.rank = max_lora_rank if enable_lora else None
        self.trust_remote_code = trust_remote_code
        self.config, self.folder = config, ModelFolder.locate(config)
        self.adapters: dict[int, Adapter] = {}
        self.requests: list[LoRARequest] = []
        self.parameters: list[SamplingParams] = []
        type(self).opened.append(self)

    def generate(
        self,
        prompts: Sequence[Mapping[str, list[int]]],
        sampling_params: Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: LoRARequest | None = None,
    ) -> list[Any]:
        assert not use_tqdm
        assert sampling_params is not None
        policy = self._policy(lora_request)
        outputs = []
        for prompt, parameters in zip(prompts, sampling_params, strict=True):
            ids = self._ids(prompt)
            assert parameters.max_tokens is not None
            assert parameters.seed is not None
            assert parameters.ignore_eos, "the model's own end is among the tokens that stop"
            assert parameters.top_k == -1
            if self.longest is not None and len(ids) + parameters.max_tokens > self.longest:
                raise ValueError(f"longer than the maximum model length of {self.longest}")
            drawn = parameters.max_tokens, parameters.temperature, parameters.top_p
            sampling = Sampling(*drawn, parameters.seed, tuple(parameters.stop_token_ids or ()))
            (sampled,) = policy.generate([np.array(ids, np.int32)], sampling)
            outputs.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=sampled.tolist())]))
        self.parameters += sampling_params
        return outputs

    def _ids(self, prompt: Mapping[str, list[int]]) -> list[int]:
        assert set(prompt) == {"prompt_token_ids"}
        assert all(type(token) is int for token in prompt["prompt_token_ids"])
        return prompt["prompt_token_ids"]

    def _policy(self, request: LoRARequest | None) -> Any:
        if request is None:
            return open_policy("torch", self.folder.path, self.config, AdapterConfig(rank=1), None)
        if self.rank is None:
            raise ValueError("enable_lora is not set")
        if request.lora_int_id not in self.adapters:
            assert request.lora_name not in {r.lora_name for r in self.requests}, "prompts' cache"
            self.adapters[request.lora_int_id] = self._loaded(Path(request.lora_path))
            self.requests.append(request)
        adapter = self.adapters[request.lora_int_id]
        parts = (self.folder.path, self.config, adapter.shape(), None)
        policy = open_policy("torch", *parts)
        policy.load_trained(policy.trained() | adapter.weights)
        return policy

    def _loaded(self, folder: Path) -> Adapter:
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["r"] <= (self.rank or 0)
        assert not config["use_dora"]
        assert config["bias"] == "none"
        assert (folder / "adapter_model.safetensors").is_file()
        adapter = load_any_adapter(folder, self.folder)
        assert isinstance(adapter, Adapter)
        return adapter


def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    """Put the stand-in in vLLM's place, and a CUDA device in that of none, for one test."""
    kind = type("LLM", (LLM,), {"opened": [], "fails": None})
    package, request = ModuleType("vllm"), ModuleType("vllm.lora.request")
    vars(package).update(LLM=kind, SamplingParams=SamplingParams)
    vars(request).update(LoRARequest=LoRARequest)
    parts = {"vllm": package, "vllm.lora": ModuleType("vllm.lora"), "vllm.lora.request": request}
    for name, module in parts.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("fpo_torch.vllm_sampling.select_device", lambda _: torch.device("cuda"))
    return kind


def options_of(call: Any) -> set[str]:
    """The keywords that a class or a function takes."""
    return set(inspect.signature(call).parameters) - {"self", "kwargs"}
