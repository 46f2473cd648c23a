"""Tiny models of many families in both layouts of a folder: the hub's, and transformers 5's.

Windows, partial rotations and scaled rotary frequencies are set so that each changes the result:
whatever a library ignores shows in the log-probabilities.
"""

import importlib
import json

import numpy as np
from safetensors.numpy import load_file, save_file

from fpo_core.config import AdapterConfig, ModelConfig
from fpo_core.data.batches import collate
from fpo_core.data.token_store import TokenisedPairs
from tests.backends.families import _GROUPED, _SIZES
from tests.backends.support import open_policy

WINDOW = 8
SHORT, BEYOND = (3, 4), (14, 21)
"""Tokens of prompt and completion, below the window and beyond it."""
LAYOUTS = ("hub", "transformers 5")

_WINDOWED = _GROUPED | {"sliding_window": WINDOW}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_HALF = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
_GPT2 = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 128}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.5, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 16,
}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 4.0}
_LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}


def _partial(share):
    return {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": share}


FAMILIES = {
    "llama": ("Llama", _GROUPED | {"rope_parameters": _LLAMA3}),
    "llama, yarn": ("Llama", _GROUPED | {"rope_parameters": _YARN}),
    "llama, linear": ("Llama", _GROUPED | {"rope_parameters": _LINEAR}),
    "llama, dynamic": (
        "Llama",
        _GROUPED | {"rope_parameters": _DYNAMIC, "max_position_embeddings": 16},
    ),
    "mistral": ("Mistral", _WINDOWED | _HALF),
    "mixtral": ("Mixtral", _WINDOWED | _HALF | {"num_local_experts": 4}),
    "qwen2": (
        "Qwen2",
        _WINDOWED | _HALF | {"use_sliding_window": True, "max_window_layers": 2},
    ),
    "qwen3": (
        "Qwen3",
        _WINDOWED
        | {"rope_parameters": _YARN, "head_dim": 8}
        | {"use_sliding_window": True, "max_window_layers": 2},
    ),
    "qwen3_moe": ("Qwen3Moe", _WINDOWED | _HALF | _MOE | {"head_dim": 8}),
    "gemma2": (
        "Gemma2",
        _WINDOWED | _HALF | {"head_dim": 8, "query_pre_attn_scalar": 8},
    ),
    "gemma3_text": (
        "Gemma3Text",
        _WINDOWED
        | {"head_dim": 16, "query_pre_attn_scalar": 8, "hidden_size": 64, "num_hidden_layers": 7},
    ),
    "phi": ("Phi", _SIZES | {"rope_parameters": _partial(0.5)}),
    "phi3": ("Phi3", _WINDOWED | _HALF),
    "phi3, longrope": (
        "Phi3",
        _GROUPED | {"rope_parameters": _LONGROPE, "original_max_position_embeddings": 16},
    ),
    "gpt2": ("GPT2", _GPT2 | {"bos_token_id": 1, "eos_token_id": 2, "vocab_size": 64}),
    "gpt_neox": (
        "GPTNeoX",
        _SIZES
        | {"intermediate_size": 128, "hidden_act": "gelu_pytorch_tanh"}
        | {"rope_parameters": _partial(0.5)},
    ),
    "olmo2": ("Olmo2", _GROUPED | {"rope_parameters": _YARN}),
    "starcoder2": ("Starcoder2", _WINDOWED | _HALF),
    "stablelm": ("StableLm", _GROUPED | {"rope_parameters": _partial(0.5)}),
    "cohere2": ("Cohere2", _WINDOWED | _HALF | {"head_dim": 8}),
    "olmo3": ("Olmo3", _WINDOWED | {"rope_parameters": _YARN}),
    "smollm3": ("SmolLM3", _GROUPED | _HALF),
    "granite": ("Granite", _GROUPED | {"rope_parameters": _LLAMA3}),
    "gpt_oss": (
        "GptOss",
        _WINDOWED | {"rope_parameters": _YARN, "head_dim": 8} | _MOE | {"num_local_experts": 4},
    ),
}
"""transformers' class, and its settings."""


def write(family, folder, layout="transformers 5", **changes):
    """Write a model of the family in a layout; returns the folder."""
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    name, settings = FAMILIES[family]
    torch.manual_seed(0)
    settings = json.loads(json.dumps(settings | {"initializer_range": 0.15} | changes))
    config = getattr(transformers, name + "Config")(**settings)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # norms and biases start at 0 or 1, where much goes unnoticed
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    if layout == "hub":
        _as_before(folder)
    return folder


def _as_before(folder):
    """Rewrite a folder as transformers 4 wrote it, which is how the hub has most models."""
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    rope = settings.pop("rope_parameters", None)
    if rope:
        settings |= _old_rope(settings["model_type"], rope)
    settings.pop("layer_types", None)
    settings["torch_dtype"] = settings.pop("dtype", "float32")
    settings["transformers_version"] = "4.45.0"
    path.write_text(json.dumps(settings))
    if settings["model_type"] == "gpt2":
        weights = load_file(folder / "model.safetensors")
        body = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
        save_file(body, folder / "model.safetensors", {"format": "pt"})


def _old_rope(kind, rope):
    if "full_attention" in rope:
        old = {"rope_theta": rope["full_attention"]["rope_theta"]}
        if kind.startswith("gemma3"):
            old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        return old
    rope = dict(rope)
    base, share = rope.pop("rope_theta"), rope.pop("partial_rotary_factor", None)
    names = {"gpt_neox": ("rotary_emb_base", "rotary_pct")}
    base_name, share_name = names.get(kind, ("rope_theta", "partial_rotary_factor"))
    old = {base_name: base} | ({} if share is None else {share_name: share})
    if rope.get("rope_type") != "default":
        rope["type"] = rope["rope_type"]
        old["rope_scaling"] = rope
    return old


def pairs(sizes, count=2, vocab=64):
    """Random pairs whose prompts and completions have these lengths."""
    generator = np.random.default_rng(5)
    prompt, completion = sizes

    def tokens(length):
        return generator.integers(4, vocab, length).tolist()

    return TokenisedPairs.from_lists(
        (tokens(prompt), tokens(completion), tokens(completion)) for _ in range(count)
    )


def expected_logps(folder, data):
    """log π of the completions by transformers alone, a sequence at a time, without padding."""
    torch, transformers = map(importlib.import_module, ("torch", "transformers"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()

    def logp(prompt, completion):
        ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
        with torch.no_grad():
            log_p = model(ids[None]).logits[0].log_softmax(-1)
        places = range(len(prompt), len(ids))
        return float(sum(log_p[i - 1, ids[i]] for i in places))

    sides = [(p.prompt, p.chosen) for p in data] + [(p.prompt, p.rejected) for p in data]
    return np.array([logp(*side) for side in sides])


def open_model(backend, folder, step=None):
    """A policy of a backend, in float32 on the CPU."""
    config = ModelConfig(model=str(folder), device="cpu", dtype="float32")
    adapter = AdapterConfig(rank=2, num_layers=1)
    return open_policy(backend, folder, config, adapter, None, step=step)


def gap(policy, data, expected):
    """Largest difference of log π, relative to the largest."""
    found = policy.score(collate(data, range(len(data)))).logps
    return float(np.abs(found - expected).max() / np.abs(expected).max())
