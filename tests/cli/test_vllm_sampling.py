"""Sampling with vLLM, against a stand-in for it; nothing here says what the real one does."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import fpo as fpo_api
from fpo.model_setup import ModelSetup
from fpo.prompt_text import prompt_ids, prompt_text
from fpo.samplers import training_sampler
from fpo.world import assets
from fpo_core.adapters.folders import save_trained
from fpo_core.backend.draws import seeds
from fpo_core.backend.policy import Sampling
from fpo_core.config import AdapterConfig, GenerateConfig, TrainConfig
from fpo_core.errors import BackendError, ConfigError, FpoError, ModelError
from fpo_core.models.folder import ModelFolder
from tests.backends.stand_in_vllm import LLM, LoRARequest, SamplingParams, options_of, stand_in
from tests.backends.support import open_policy, shaken
from tests.helpers import random_pairs

from .conftest import Fpo

RUN: dict[str, Any] = {
    "model": "m",
    "data": "d",
    "output": "o",
    "objective": "dpo",
    "sampler": "vllm",
}
ASKED = [f"Tell me about the {colour} lamp." for colour in ("red", "old", "small")]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    return stand_in(monkeypatch)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(ASKED))
    return path


def settings(**changes: Any) -> dict[str, Any]:
    few = {"backend": "torch", "dtype": "float32", "max_tokens": 8, "sampler": "vllm"}
    return {"model": str(assets().model)} | few | changes


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def adapter_in(folder: Path, **shape: Any) -> Path:
    """An adapter that changes what the world's model says."""
    config = settings()
    model = ModelFolder.locate(GenerateConfig(prompt="", **config))
    adapter = AdapterConfig(**(shape or {"rank": 4}))
    policy = open_policy("torch", model.path, GenerateConfig(prompt="", **config), adapter, None)
    folder.mkdir()
    save_trained(folder, shaken(policy.trained(), 0.1), adapter, model.name, model)
    return folder


def policys_own(config: GenerateConfig, count: int) -> list[str]:
    """What the policy says to each prompt at the seeds that vLLM is given."""
    setup, texts = ModelSetup(config), []
    policy = setup.policy(AdapterConfig(rank=1, num_layers=1))
    for asked in ASKED:
        ids = prompt_ids(setup.tokenizer, prompt_text(setup.tokenizer, asked, config), config)
        for seed in seeds([ids] * count, config.seed):
            sampling = Sampling(config.max_tokens, 1.0, config.top_p, seed, setup.stop)
            texts += [setup.tokenizer.decode(x, True) for x in policy.generate([ids], sampling)]
    return texts


def test_a_file_is_answered_at_a_seed_for_each_sample(
    vllm: type[LLM], prompts: Path, tmp_path: Path
) -> None:
    asked = settings(prompts=str(prompts), samples=2, top_p=0.9)
    whole = fpo_api.answer_prompts(**asked, out=tmp_path / "whole.jsonl")
    texts = [row["completion"] for row in lines(whole.out)]
    config = GenerateConfig(**asked, out=str(whole.out))
    assert texts == policys_own(config, 2)
    assert len({*texts}) > 3
    again = fpo_api.answer_prompts(**asked, out=tmp_path / "again.jsonl", batch_size=1)
    assert [row["completion"] for row in lines(again.out)] == texts
    other = fpo_api.answer_prompts(**asked, out=tmp_path / "other.jsonl", seed=1)
    assert [row["completion"] for row in lines(other.out)] != texts
    engine = vllm.opened[0]
    assert len({p.seed for p in engine.parameters}) == 6
    assert {(p.temperature, p.top_p) for p in engine.parameters} == {(1.0, 0.9)}
    assert set(ModelSetup(config).stop) == set(engine.parameters[0].stop_token_ids or ())
    assert (engine.rank, engine.memory) == (None, 0.4)


def test_answers_of_another_sampler_are_not_gone_on_with(
    vllm: type[LLM], prompts: Path, tmp_path: Path
) -> None:
    asked = settings(prompts=str(prompts), out=tmp_path / "answers.jsonl")
    fpo_api.answer_prompts(**asked)
    fpo_api.answer_prompts(**asked)
    assert len(vllm.opened) == 1
    with pytest.raises(ConfigError, match="line 1 is not of these prompts, model and settings"):
        fpo_api.answer_prompts(**asked | {"sampler": "backend"})


def test_the_command_answers_with_an_adapter(
    vllm: type[LLM], prompts: Path, tmp_path: Path, fpo: Fpo
) -> None:
    folder = adapter_in(tmp_path / "adapter")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings().items()]
    options += ["--prompts", prompts, "--vllm-memory", 0.3]
    bare = fpo("generate", *options, "--out", tmp_path / "bare.jsonl", "--json")
    assert bare.code == 0, bare.err
    options += ["--adapter", folder, "--out", tmp_path / "out.jsonl", "--json"]
    ran = fpo("generate", *options)
    assert ran.json["generated"] == 3, ran.err
    config = GenerateConfig(**settings(prompts=str(prompts), out="-", adapter=str(folder)))
    texts = [row["completion"] for row in lines(tmp_path / "out.jsonl")]
    assert texts == policys_own(config, 1)
    assert texts != [row["completion"] for row in lines(tmp_path / "bare.jsonl")]
    engine = vllm.opened[-1]
    assert (engine.rank, engine.memory) == (8, 0.3)
    assert not any(Path(request.lora_path).exists() for request in engine.requests)


def test_a_sample_has_its_best_and_worst(
    vllm: type[LLM], prompts: Path, tmp_path: Path, fpo: Fpo
) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings().items()]
    options += ["--prompts", prompts, "--samples", 3, "--judge", "oracle", "--json"]
    ran = fpo("sample", *options, "--output", tmp_path / "pairs.jsonl")
    assert ran.code == 0, ran.err
    assert ran.json["generated"] == 9
    assert ran.json["pairs"] + ran.json["tied"] == 3
    assert len(vllm.opened) == 1


def test_one_prompt_is_told_as_it_would_be_streamed(vllm: type[LLM]) -> None:
    events: list[fpo_api.Event] = []
    asked = settings(prompt=ASKED[0], samples=2, temperature=0)
    result = fpo_api.generate(**asked, sink=events.append)
    own = fpo_api.generate(**asked | {"sampler": "backend"})
    assert result.texts == own.texts
    pieces = [e.values["text"] for e in events if e.kind == "text" and e.values["sample"] == 1]
    assert "".join(pieces) == result.texts[1]
    tokens = sum(completion.tokens for completion in result.completions)
    assert max(e.values["done"] for e in events if e.kind == "progress") == tokens
    assert vllm.opened[0].longest == result.prompt_tokens + 8


def test_a_completion_ends_at_the_models_end_and_its_limit(vllm: type[LLM]) -> None:
    """The end-of-turn token is part of a sample that reaches it, as of the policy's own."""
    result = fpo_api.generate(**settings(prompt=ASKED[0], max_tokens=200, samples=3))
    limit = vllm.opened[0].parameters[0].max_tokens
    assert limit is not None
    assert any(completion.tokens < limit for completion in result.completions)
    assert all(c.ended or c.tokens == limit for c in result.completions)


def test_an_online_run_draws_from_its_present_adapter(vllm: type[LLM], tmp_path: Path) -> None:
    quick = {"iters": 4, "batch_size": 2, "preflight": False, "report": False}
    run = fpo_api.train(
        model=assets().model,
        data=assets().pairs,
        backend="torch",
        dtype="float32",
        objective="dpo",
        online="plain",
        online_every=2,
        online_tokens=8,
        sampler="vllm",
        by=lambda prompt, text: float(len(text)),
        output=tmp_path / "run",
        cache=tmp_path / "cache",
        learning_rate=1e-2,
        max_rows=12,
        max_seq_length=64,
        save_every=2,
        greedy_answers=0,
        **quick,
    )
    (engine,) = vllm.opened
    pools = [event for event in run.events if event["kind"] == "pool"]
    assert [event["step"] for event in pools] == [1, 3]
    assert [request.lora_int_id for request in engine.requests] == [1, 2]
    first, second = engine.adapters.values()
    assert not any(weight.any() for name, weight in first.weights.items() if "lora_B" in name)
    saved = load_file(run.output / "checkpoints" / "step-00000002" / "trained.safetensors")
    for name, weight in second.weights.items():
        np.testing.assert_array_equal(weight, saved[name])
    assert len(engine.parameters) == sum(event["wanted"] for event in pools) * 2
    assert not any(Path(request.lora_path).exists() for request in engine.requests)


def test_several_processes_do_not_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(**RUN, online="dpp", backend="torch")
    setup = ModelSetup(config)
    monkeypatch.setattr(ModelSetup, "group", type("Two", (), {"size": 2}))
    with pytest.raises(ConfigError, match="trains in one process, but the run has 2"):
        training_sampler(setup, config, random_pairs(2))


def generated(**changes: Any) -> Any:
    return fpo_api.generate(**settings(prompt="x", **changes))


def test_a_cpu_is_refused() -> None:
    with pytest.raises(BackendError, match="needs a CUDA device, but the device is cpu: leave"):
        generated(device="cpu")


def test_mlx_is_refused(vllm: type[LLM]) -> None:
    with pytest.raises(BackendError, match="does not sample for backend mlx: set backend to torch"):
        generated(backend="mlx")


def test_its_absence_is_told(vllm: type[LLM], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BackendError, match=r"cannot be imported here .*fpo-mlx\[vllm\]'"):
        generated()


def test_its_own_errors_are_told(vllm: type[LLM]) -> None:
    vllm.fails = "Free memory on device is less than desired GPU memory utilization."
    with pytest.raises(BackendError, match=r"vLLM failed \(Free memory .*: where .* vllm_memory"):
        generated()


@pytest.mark.parametrize("kind", ["dora", "prompt"])
def test_adapters_other_than_lora_are_refused(vllm: type[LLM], kind: str, tmp_path: Path) -> None:
    folder = adapter_in(tmp_path / "adapter", fine_tune_type=kind)
    with pytest.raises(ModelError, match=f"opens LoRA adapters alone, but the adapter is {kind}"):
        generated(adapter=str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": ("v",), "samples": 1}, "value is set while sampler is vllm, which cannot ask"),
        ({"sampler": "backend", "vllm_memory": 0.5}, "vllm_memory is set while sampler is backend"),
        ({"sampler": "other"}, "sampler is 'other', expected"),
    ],
)
def test_settings_that_contradict_it_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generated(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "sampler is set while online is not"),
        ({"online": "ddp"}, "sampler is vllm, but online ddp samples nothing"),
        ({"online": "dpp", "fine_tune_type": "full"}, "LoRA adapters alone, but fine_tune_type is"),
    ],
)
def test_runs_that_it_cannot_serve_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FpoError, match=message):
        TrainConfig(**RUN | changes)


def test_the_stand_in_takes_what_vllm_takes() -> None:
    """Where vLLM is installed: every keyword of the stand-in is one of vLLM's."""
    vllm = pytest.importorskip("vllm", reason="vLLM is not installed")
    request = pytest.importorskip("vllm.lora.request")
    engine = options_of(vllm.LLM.__init__) | options_of(vllm.EngineArgs)
    assert options_of(LLM.__init__) <= engine
    assert options_of(LLM.generate) <= options_of(vllm.LLM.generate)
    assert options_of(SamplingParams) <= options_of(vllm.SamplingParams)
    assert options_of(LoRARequest) <= options_of(request.LoRARequest)
