"""Fresh pairs and value-guided decoding on the quickstart's world, judged by its oracle.

Training: FPO on the world's pairs, plain online FPO and SAIL's DPR, on as many pairs and then on as
many CPU seconds as FPO took. Decoding: a value function of the bare model at several β beside the
best of 4 and of 16 samples, and two values composed (politeness, French). KL is exact: summed over
the vocabulary at every token of the samples, in nats a sample; of the best of n it is the formula
for equal rewards, on the rewards of all samples. Each result is written as it comes, and what is
there is not measured again.

Run: python -m benchmarks.online_world [--seeds 5] [--part training] [--folder FOLDER]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import fpo
from benchmarks.record import read_result, write_result
from fpo.model_setup import FROZEN, ModelSetup
from fpo.prompt_text import prompt_ids, prompt_text
from fpo.world import score
from fpo_core.backend.draws import occurrences
from fpo_core.backend.policy import Policy, Sampling
from fpo_core.config import GenerateConfig
from fpo_core.config.runs import PromptConfig
from fpo_core.events import Event

NAME = "online_world"
STEPS, PROMPTS, SAMPLES, TOKENS = 40, 60, 2, 64
"""Of a run, a third of the quickstart's; held-out prompts, samples of each, most tokens."""
VALUE_PROMPTS, VALUE_SAMPLES, TOP_K = 150, 8, 10
"""Prompts and samples of each that a value is trained on; tokens whose values are asked."""
BETAS = (1.0, 3.0, 10.0)
PAIRED = ((3.0, 3.0), (10.0, 10.0), (10.0, -10.0), (-10.0, 10.0))
"""β of politeness, as preferred by the pairs, and of French."""
SETTINGS = {
    **{"steps": STEPS, "prompts": PROMPTS, "samples": SAMPLES, "value_prompts": VALUE_PROMPTS},
    **{"value_samples": VALUE_SAMPLES, "value_top_k": TOP_K},
}
Scored = dict[str, Any]


def polite(prompt: str, text: str) -> float:
    """What the pairs prefer."""
    return score(prompt, text).preferred


def french(prompt: str, text: str) -> float:
    """The share of French words."""
    del prompt
    return score("", text).language


JUDGES = {"politeness": polite, "french": french}


@dataclass(frozen=True)
class Rows:
    """The results of a part and a seed, written one by one."""

    part: str
    seed: int

    def of(self, name: str, measure: Callable[[], Scored], *, anew: bool = False) -> Scored:
        """The row of this name, measured where it is not there yet."""
        seeds = read_result(NAME).get("seeds", {})
        rows = seeds.setdefault(str(self.seed), {}).setdefault(self.part, {})
        if anew or name not in rows:
            rows[name] = measure()
            write_result(NAME, {"settings": SETTINGS, "seeds": seeds})
            print(self.seed, name, json.dumps(rows[name]), flush=True)
        return rows[name]


class World:
    """The example's files, its held-out prompts, and a folder for runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.example = folder, fpo.quickstart_world()
        self.example.convert(folder)
        self.held_out = self.prompts("valid")[:PROMPTS]

    def prompts(self, split: str) -> list[str]:
        """Distinct prompts of a split."""
        lines = (self.example.pairs / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line)["prompt"] for line in lines]
        texts = (row if isinstance(row, str) else row[-1]["content"] for row in rows)
        return list(dict.fromkeys(texts))

    def setup(self, **settings: Any) -> ModelSetup:
        """The model, with an adapter or values."""
        config = GenerateConfig(
            **{"model": str(self.example.model), "backend": "torch", "device": "cpu"},
            **{"prompt": "-", "max_tokens": TOKENS} | settings,
        )
        return ModelSetup(config)

    def sampling(self, setup: ModelSetup) -> Sampling:
        """As the settings say, under the values that they name."""
        assert isinstance(setup.config, PromptConfig)
        return setup.sampling(setup.config)

    def ids(self, setup: ModelSetup) -> list[np.ndarray]:
        """The held-out prompts as the model reads them."""
        config = setup.config
        assert isinstance(config, PromptConfig)
        tokenizer = setup.tokenizer
        texts = [prompt_text(tokenizer, prompt, config) for prompt in self.held_out]
        return [prompt_ids(tokenizer, text, config) for text in texts]

    def samples(self, setup: ModelSetup, policy: Policy, count: int, sampling: Sampling) -> Any:
        """Prompt ids, sampled ids and oracle's scores, those of a prompt one after the other."""
        asked = [ids for ids in self.ids(setup) for _ in range(count)]
        numbers, drawn = occurrences(asked), []
        for at in range(0, len(asked), 50):
            batch = slice(at, at + 50)
            drawn += policy.generate(asked[batch], sampling, numbers=numbers[batch])
        texts = [setup.tokenizer.decode(ids, skip_special_tokens=True) for ids in drawn]
        prompts = (prompt for prompt in self.held_out for _ in range(count))
        scores = [score(p, text) for p, text in zip(prompts, texts, strict=True)]
        return asked, drawn, scores


def divergences(policy: Policy, base: Any, asked: Any, drawn: Any) -> np.ndarray:
    """KL(π ‖ π0) summed over the tokens of each sample, (n,), for `base` weights of π0."""
    own, found = policy.trained(), []
    for prompt, ids in zip(asked, drawn, strict=True):
        tokens = np.concatenate([prompt, ids])[None, :-1]
        logps = []
        for weights in (own, base):
            policy.load_trained(weights)
            x = policy.logits(tokens)[0, len(prompt) - 1 :].astype(np.float64)
            logps.append(x - np.logaddexp.reduce(x, -1, keepdims=True))
        found.append((np.exp(logps[0]) * (logps[0] - logps[1])).sum())
    policy.load_trained(own)
    return np.array(found)


def means(scores: Sequence[Any], kl: np.ndarray) -> Scored:
    """Mean scores and KL of samples."""
    names = ("preferred", "language", "well_formed")
    values = {name: float(np.mean([getattr(s, name) for s in scores])) for name in names}
    return values | {"kl": float(np.mean(kl))}


def trained(world: World, seed: int, name: str, iters: int, **online: Any) -> Scored:
    """A run of FPO and its samples; CPU seconds are those of its loop, sampling included."""
    clock: dict[str, float] = {}

    def listen(event: Event) -> None:
        clock[event.kind] = time.process_time()

    output = world.folder / f"{name}-{seed}"
    few = {"iters": iters, "seed": seed, "output": str(output), "report": False}
    few |= {"preflight": False, "steps_per_eval": 10_000, "save_every": 10_000, "val_pairs": 100}
    few |= {"backend": "torch", "device": "cpu", "reference": str(world.folder / "reference")}
    run = fpo.train(**world.example.training(world.folder) | few | online, sink=listen)
    setup = world.setup(adapter=str(output), seed=seed)
    policy = setup.policy(FROZEN)
    asked, drawn, scores = world.samples(setup, policy, SAMPLES, world.sampling(setup))
    bare = {n: w * (0 if n.endswith("lora_B") else 1) for n, w in policy.trained().items()}
    values = means(scores, divergences(policy, bare, asked, drawn))
    metrics = run.metrics
    values |= {n.removeprefix("fpo/"): metrics[n] for n in ("fpo/d_chosen", "fpo/d_rejected")}
    return values | {"iters": iters, "cpu_seconds": clock["end"] - clock["begin"]}


def training(world: World, seed: int, rows: Rows) -> None:
    """The three ways on equal pairs, the two online ones on equal seconds too."""
    judged = {"judge": "oracle"}
    ways: dict[str, dict[str, Any]] = {
        "online": {"online": "plain"} | judged,
        "dpr": {"online": "dpr"} | judged,
    }
    seconds = rows.of("fpo", lambda: trained(world, seed, "fpo", STEPS))["cpu_seconds"]
    for name, settings in ways.items():
        equal = rows.of(name, lambda n=name, s=settings: trained(world, seed, n, STEPS, **s))
        fewer = max(1, round(STEPS * seconds / equal["cpu_seconds"]))
        rows.of(
            f"{name}, equal seconds",
            lambda n=name, s=settings, k=fewer: trained(world, seed, f"{n}-s", k, **s),
        )


def best_of(rewards: np.ndarray, n: int) -> float:
    """KL of the best of n from one sample, where equal rewards fall to the first, in nats.

    A reward of probability f − g, f its distribution function and g that of all below, is chosen
    with fⁿ − gⁿ, whichever text has it.
    """
    counts = np.unique(rewards, return_counts=True)[1]
    reached = np.concatenate([[0], np.cumsum(counts)]) / len(rewards)
    chosen, drawn = np.diff(reached**n), np.diff(reached)
    return float((chosen * np.log(chosen / drawn)).sum())


def decoding(world: World, seed: int, rows: Rows) -> None:
    """A value of politeness at several β, beside best of n."""
    folder = learnt(world, seed, "politeness", rows)
    rows.of("best", lambda: unguided(world, seed))
    for beta in BETAS:
        rows.of(f"beta {beta:g}", lambda b=beta: guided(world, seed, [folder], (b,)))


def composed(world: World, seed: int, rows: Rows) -> None:
    """Values of politeness and of French together."""
    folders = [learnt(world, seed, name, rows) for name in JUDGES]
    for betas in PAIRED:
        name = " and ".join(f"{beta:g}" for beta in betas)
        rows.of(f"both at {name}", lambda b=betas: guided(world, seed, folders, b))


def learnt(world: World, seed: int, name: str, rows: Rows) -> str:
    """The folder of a value, trained where it is not there yet."""
    folder = world.folder / f"value-{name}-{seed}"
    if not (folder / "fpo_value.json").exists():
        rows.of(f"value of {name}", lambda: value(world, seed, name, str(folder)), anew=True)
    return str(folder)


def value(world: World, seed: int, name: str, folder: str) -> Scored:
    """A value function of the bare model, and how well it explains held-out rewards."""
    prompts = world.folder / "value-prompts.jsonl"
    texts = world.prompts("train")[:VALUE_PROMPTS]
    prompts.write_text("".join(json.dumps({"prompt": t}) + "\n" for t in texts), encoding="utf-8")
    trained = fpo.train_value(
        **{"model": str(world.example.model), "prompts": str(prompts), "seed": seed},
        **{"output": folder, "samples": VALUE_SAMPLES, "max_tokens": TOKENS},
        **{"backend": "torch", "device": "cpu", "learning_rate": 3e-3, "epochs": 2.0},
        by=JUDGES[name],
    )
    return {"explained": trained.explained, "mean_reward": trained.mean_reward}


def unguided(world: World, seed: int) -> Scored:
    """16 samples of the bare model for each prompt, and the best of 4 and of 16."""
    setup = world.setup(seed=seed)
    policy, sampling = setup.policy(FROZEN), world.sampling(setup)
    start = time.process_time()
    _, drawn, scores = world.samples(setup, policy, 16, sampling)
    seconds = (time.process_time() - start) / len(drawn)
    result: Scored = {"beta 0": means(scores, np.zeros(1)) | {"cpu_seconds_each": seconds}}
    rewards = np.array([s.preferred for s in scores])
    for n in (4, 16):
        best = rewards.reshape(-1, n).max(1)
        row = {"preferred": float(best.mean()), "kl": best_of(rewards, n)}
        result[f"best of {n}"] = row | {"cpu_seconds_each": n * seconds}
    return result


def guided(world: World, seed: int, folders: list[str], betas: Sequence[float]) -> Scored:
    """One sample of each held-out prompt under values."""
    names = tuple(f"{beta:g}" for beta in betas)
    setup = world.setup(seed=seed, value=tuple(folders), value_beta=names, value_top_k=TOP_K)
    policy, told, sampling = setup.policy(FROZEN), list[np.ndarray](), world.sampling(setup)
    assert sampling.guide is not None
    sampling = replace(sampling, guide=replace(sampling.guide, on_kl=told.append))
    start = time.process_time()
    _, drawn, scores = world.samples(setup, policy, 1, sampling)
    seconds = (time.process_time() - start) / len(drawn)
    return means(scores, np.concatenate(told)) | {"cpu_seconds_each": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--part", choices=tuple(PARTS))
    parser.add_argument("--folder", type=Path, help="where runs lie; what is there is gone on with")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        world = World(folder)
        for seed in range(args.seeds):
            for name, measure in PARTS.items():
                if args.part in (None, name):
                    measure(world, seed, Rows(name, seed))


PARTS = {"decoding": decoding, "training": training, "composed": composed}

if __name__ == "__main__":
    main()
