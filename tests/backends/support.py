"""What the backend tests do with policies, through the `Policy` protocol alone."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np

from fpo_core.config import ObjectiveConfig, OptimiserConfig
from fpo_core.data.batches import Batch
from fpo_core.loss.dense import ReferenceBatch

HIDDEN = 32
UNTRAINED = (5, 6)
OBJECTIVE = ObjectiveConfig(alpha=2.0, beta=0.5, k=8, normalize_d=False)
"""Strong enough that the constraint is a fair part of the gradient."""
BETA1 = 0.9


def write_tiny_model(folder):
    """A random Llama with grouped queries and a rope_theta that is nobody's default."""
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        initializer_range=0.25,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    # Habits that a hub model may bring and that sampling must not follow
    habits = {"eos_token_id": 2, "repetition_penalty": 4.0, "top_k": 1, "temperature": 0.1}
    (folder / "generation_config.json").write_text(json.dumps(habits))


def open_policy(backend, folder, config, adapter, tap, **options):
    """The policy of a backend."""
    name = {"torch": "TorchPolicy", "mlx": "MlxPolicy"}[backend]
    kind = getattr(importlib.import_module(f"fpo_{backend}.policy"), name)
    return kind(Path(folder), config, adapter, tap, **options)


def reference_of(policy, batch):
    """What a reference store would hold of this batch, were this policy the frozen model."""
    scores = policy.score(batch)
    truncated = None if scores.pooled is None else np.zeros(len(scores.logps), np.float32)
    return ReferenceBatch(scores.logps, scores.pooled, truncated)


def shaken(weights, scale=0.05, seed=0):
    """Trained weights moved at random, by name, so that policy and reference differ."""
    generator = np.random.default_rng(seed)
    return {
        name: weights[name] + scale * generator.normal(size=weights[name].shape).astype(np.float32)
        for name in sorted(weights)
    }


def rows_of(batch, pairs):
    """The positions of these pairs' sequences among a batch's 2b."""
    return [*pairs, *(batch.pairs + i for i in pairs)]


def part(batch, pairs):
    """Some pairs of a batch, in this order."""
    rows = rows_of(batch, pairs)
    arrays = {name: getattr(batch, name)[rows] for name in ("tokens", "prompt_lengths", "lengths")}
    return Batch(**arrays, rows=batch.rows[list(pairs)])


def part_of_reference(reference, batch, pairs):
    """The stored reference of those pairs."""
    rows = rows_of(batch, pairs)
    arrays = {f.name: getattr(reference, f.name) for f in dataclasses.fields(reference)}
    return ReferenceBatch(**{k: None if v is None else v[rows] for k, v in arrays.items()})


def gradients(policy, batches, objective=OBJECTIVE, weight=0.25):
    """The accumulated gradient by canonical name, read from Adam's first moment after one step."""
    policy.prepare_training(OptimiserConfig())
    for batch, reference in batches:
        policy.accumulate(batch, reference, objective, weight)
    norm = policy.apply_gradients(0.0, 1e9)
    state = policy.optimizer_state()
    assert int(state["step"]) == 1
    found = {
        name.removesuffix(".m"): value / (1 - BETA1)
        for name, value in state.items()
        if name.endswith(".m")
    }
    total = np.sqrt(sum((value.astype(np.float64) ** 2).sum() for value in found.values()))
    np.testing.assert_allclose(norm, total, rtol=1e-4)
    assert total > 0
    return found


def difference(found, expected):
    """‖found − expected‖ / ‖expected‖ over all names."""
    assert found.keys() == expected.keys()
    squares = [(((found[n] - expected[n]) ** 2).sum(), (expected[n] ** 2).sum()) for n in expected]
    apart, size = np.sum(squares, axis=0)
    return float(np.sqrt(apart / size))
