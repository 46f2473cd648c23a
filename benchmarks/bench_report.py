"""The report: how long it takes to make, how large it is, how soon it is usable, how exact it is.

`build` compares making it with one scoring pass over the shown pairs, on the embedded world, in
processor time, interleaved: after training, again for a run that left the record of these pairs,
and for one that left none, whose reference is scored too. `open` gives a page of 10,000 logged
steps, 500 pairs of long completions and 200 features to headless Chromium. `numbers` computes the
features of a run again in NumPy from the models' own dense outputs, and on the other backend.
"""

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fpo
from benchmarks.record import read_result, write_result
from fpo.model_setup import FROZEN, ModelSetup
from fpo.reporting.known_reference import Known, known_reference
from fpo.reporting.page import run_page
from fpo.reporting.record import PER_NAT, Record
from fpo.reporting.reread import config_of, inspect_again, inspected_with_lens
from fpo.world import assets
from fpo_core.config import ReportConfig, ReportedConfig, TrainConfig
from fpo_core.evaluation.inspection import ReferenceTokens, inspect, reference_tokens
from fpo_core.events import silent
from fpo_core.sae.sae import load_sae
from fpo_core.train.paired_data import RunData, spread
from fpo_core.train.validate import score_pairs

PAIRS, FEATURES, STEPS, LENGTH = 500, 200, 10_000, 200
BROWSER = ["--headless", "--no-sandbox", "--disable-gpu"]


def events() -> list[dict[str, Any]]:
    """A log of 10,000 steps, each reported, a hundred validated."""
    generator = np.random.default_rng(0)
    names = ("loss", "fpo/constraint_ratio", "peak_memory", "tokens_per_second")
    sides = ("fpo/raw_accuracy", "rewards/accuracies", "rewards/chosen", "rewards/rejected")
    sides = (*sides, "fpo/d_chosen", "fpo/d_rejected", "loss")
    found = []
    for step in range(1, STEPS + 1):
        noise = generator.random(len(names))
        values = {n: float(x + 1 / step) for n, x in zip(names, noise, strict=True)}
        found.append({"kind": "train", "step": step} | values)
        if step % 100 == 0:
            values = {f"eval_{n}": float(generator.random()) for n in sides}
            found.append({"kind": "eval", "step": step} | values)
    return found


def build(rounds: int, backend: str) -> dict[str, Any]:
    """Processor seconds of a scoring pass and of making the report, and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fpo.convert_sae(source=assets().sae, out=folder / "sae.safetensors")
        config = TrainConfig(
            model=str(assets().model),
            data=str(assets().pairs),
            sae=(str(folder / "sae.safetensors"),),
            output=str(folder / "run"),
            cache=str(folder / "cache"),
            max_seq_length=64,
            tokens_per_batch=4096,
            backend=backend,
        )
        setup = ModelSetup(config)
        pairs = setup.load_data(config).train
        policy = setup.policy(FROZEN)
        store = setup.reference(folder / "store", [pairs], policy, config, silent)
        policy.set_reference(policy.trained())
        weights = policy.trained()
        noise = np.random.default_rng(0)
        for key, weight in weights.items():
            weights[key] = weight + 0.02 * noise.normal(size=weight.shape).astype(np.float32)
        policy.load_trained(weights)
        data = RunData(pairs, None, store, setup.features and sum(setup.features.widths))
        rows = spread(len(pairs), PAIRS)
        log = events()

        def score(kl: bool) -> None:
            budget = config.tokens_per_batch
            score_pairs(policy, data, pairs, config, kl=kl, pairs=PAIRS, tokens_per_batch=budget)

        def reference(known: Known | None = None) -> ReferenceTokens:
            budget = config.tokens_per_batch
            return reference_tokens(policy, data, pairs, rows, budget, swap=True, known=known)

        def make(before: ReferenceTokens) -> Record:
            inspection = inspect(
                policy,
                data,
                pairs,
                config,
                pairs=PAIRS,
                features=setup.features,
                shown_features=FEATURES,
                tokens_per_batch=config.tokens_per_batch,
                before=before,
            )
            shown = ReportedConfig(shown_pairs=PAIRS, shown_features=FEATURES)
            parts = inspected_with_lens(policy, inspection, setup.tokenizer, setup.features, shown)
            run_page(parts | {"title": "run", "about": []}, log)
            return parts

        before = reference()
        record = make(before)

        def make_again() -> None:
            make(reference(known_reference(folder, record, pairs, rows, setup.tokenizer)))

        tasks: dict[str, Callable[[], object]] = {
            "scoring": lambda: score(False),
            "scoring with KL": lambda: score(True),
            "page after training": lambda: make(before),
            "page again, from its record": make_again,
            "page of a run without record": lambda: make(reference()),
        }
        seconds: dict[str, list[float]] = {task: [] for task in tasks}
        for turn in range(rounds + 1):
            for task, run in tasks.items():
                start = time.process_time()
                run()
                if turn:  # the first round warms up
                    seconds[task].append(time.process_time() - start)
    medians = {task: statistics.median(found) for task, found in seconds.items()}
    return {
        "pairs": PAIRS,
        "features": FEATURES,
        "seconds": medians,
        "to scoring": {name: s / medians["scoring"] for name, s in medians.items()},
        "to scoring with KL": {name: s / medians["scoring with KL"] for name, s in medians.items()},
    }


def large_record(run: Path) -> dict[str, Any]:
    """The record of a run, enlarged to 500 pairs of completions of 200 tokens and 200 features."""
    record = json.loads((run / "report.json").read_text())
    generator = np.random.default_rng(0)
    words = generator.integers(97, 123, (20_000, 6))
    record["vocabulary"] += [" " + "".join(map(chr, word)) for word in words]
    size = len(record["vocabulary"])

    def side() -> dict[str, Any]:
        logps = -generator.gamma(1.0, 1500.0, LENGTH).astype(int)
        return {
            "tokens": generator.integers(0, size, LENGTH).tolist(),
            "before": logps.tolist(),
            "after": (logps + generator.normal(0, 600, LENGTH).astype(int)).tolist(),
        }

    prompt = record["pairs"][0]["prompt"] * 8
    record["pairs"] = [
        {"row": i, "margin": i / 100 - 1, "prompt": prompt, "chosen": side(), "rejected": side()}
        for i in range(PAIRS)
    ]
    every = record["features"]
    record["features"] = [every[i % len(every)] | {"index": i} for i in range(FEATURES)]
    return record


def open_page(run: Path, rounds: int) -> dict[str, Any]:
    """Size of a large page, and seconds until a browser has drawn it and answered a search."""
    from playwright.sync_api import sync_playwright

    text = run_page(large_record(run), events())
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        file = Path(name) / "report.html"
        file.write_text(text, encoding="utf-8")
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER)
        found = []
        for _ in range(rounds):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            watch = page.context.new_cdp_session(page)
            # Time of the page's own thread: a machine that others keep busy does not slow it.
            watch.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
            watch.send("Performance.enable")
            start = time.perf_counter()
            page.goto(f"file://{file}")
            page.locator("#pair-list details").first.wait_for()
            drawn = time.perf_counter() - start
            page.fill("#pair-search", "pencil")
            page.select_option("#feature-filter", "rose")
            answered = time.perf_counter() - start
            metrics = watch.send("Performance.getMetrics")["metrics"]
            thread = next(m["value"] for m in metrics if m["name"] == "TaskDuration")
            found.append({"drawn": drawn, "answered": answered, "thread": thread})
            page.close()
        browser.close()
    of = {name: [row[name] for row in found] for name in found[0]}
    return {
        "bytes": len(text.encode()),
        "rounds": rounds,
        "seconds, median": {name: statistics.median(values) for name, values in of.items()},
        "seconds, best": {name: min(values) for name, values in of.items()},
    }


def numbers(run: Path, pairs: int | None, backends: Sequence[str]) -> dict[str, Any]:
    """The largest differences of a run's shown numbers from NumPy's, and between backends."""
    config = config_of(run)
    asked = ReportConfig(runs=(str(run),), shown_pairs=pairs, shown_features=10**6)
    again = {
        backend: inspect_again(run, dataclasses.replace(asked, backend=backend), silent)
        for backend in backends
    }
    record = again[backends[0]]
    sides = {backend: np.array([f["d"] for f in r["features"]]) for backend, r in again.items()}
    dense = dense_features(run, config, [pair["row"] for pair in record["pairs"]])
    differences: dict[str, float] = {"tokens": 0.0}
    for pair in record["pairs"]:
        for side in ("chosen", "rejected"):
            for when in ("before", "after"):
                shown = np.array(pair[side][when]) / PER_NAT
                gap = np.abs(shown - dense[pair["row"], side, when][0]).max()
                differences["tokens"] = max(differences["tokens"], float(gap))
    rows = [pair["row"] for pair in record["pairs"]]
    indices = [feature["index"] for feature in record["features"]]
    for number, side in enumerate(("chosen", "rejected")):
        before, after = (
            np.array([dense[row, side, when][1] for row in rows]) for when in ("before", "after")
        )
        moved = contributions(after, capped(before, config.feature_cap), config)
        expected = {
            "before": before.mean(0),
            "after": after.mean(0),
            "fires_before": (before > 0).mean(0),
            "fires_after": (after > 0).mean(0),
            "d": moved.mean(0),
        }
        for name, of_every in expected.items():
            values = of_every[indices]
            shown = np.array([feature[name][number] for feature in record["features"]])
            gap = np.abs(shown - values) / np.maximum(1, np.abs(values))
            differences[name] = max(differences.get(name, 0.0), float(gap.max()))
    return {
        "pairs": len(rows),
        "features": len(record["features"]),
        "largest difference from NumPy": differences,
        "sum of contributions over D": {
            backend: (sides[backend].sum(0) / np.array(again[backend]["d"])).tolist()
            for backend in again
        },
        "largest difference between backends": max(
            (between(record, again[backend]) for backend in backends[1:]), default=None
        ),
    }


def between(left: dict[str, Any], right: dict[str, Any]) -> float:
    """The largest difference of two reports' shown numbers, relative above 1."""
    gaps = [0.0]
    for a, b in zip(left["pairs"], right["pairs"], strict=True):
        gaps.append(abs(a["margin"] - b["margin"]) / max(1.0, abs(a["margin"])))
        for side in ("chosen", "rejected"):
            for when in ("before", "after"):
                gap = np.abs(np.array(a[side][when]) - np.array(b[side][when])).max() / PER_NAT
                gaps.append(float(gap))
    others = {feature["index"]: feature for feature in right["features"]}
    for feature in left["features"]:
        other = others[feature["index"]]
        for name in ("before", "after", "fires_before", "fires_after", "d"):
            for x, y in zip(feature[name], other[name], strict=True):
                gaps.append(abs(x - y) / max(1.0, abs(x)))
    return max(gaps)


def dense_features(run: Path, config: TrainConfig, rows: list[int]) -> dict[Any, Any]:
    """log π of tokens and mean features of each completion, from whole-sequence passes."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    setup = ModelSetup(config)
    data = setup.load_data(config)
    split = data.train if data.valid is None else data.valid
    assert setup.features is not None
    tap, untrained = setup.features.single, setup.features.untrained
    assert tap.hook.site == "resid_post"
    sae = load_sae(Path((config.sae or ("",))[0]))
    found: dict[Any, Any] = {}
    base = AutoModelForCausalLM.from_pretrained(setup.model.path, dtype=torch.float32).eval()
    for when in ("before", "after"):
        model = base if when == "before" else PeftModel.from_pretrained(base, run).eval()
        for pair in (split[i] for i in range(len(split))):
            if pair.row not in rows:
                continue
            for side in ("chosen", "rejected"):
                ids, start = np.concatenate([pair.prompt, getattr(pair, side)]), len(pair.prompt)
                with torch.no_grad():
                    out = model(torch.tensor(ids[None]).long(), output_hidden_states=True)
                logits = out.logits[0].double().numpy()[start - 1 : -1]
                hidden = out.hidden_states[tap.hook.layer + 1][0].double().numpy()[start:]
                shifted = logits - logits.max(1, keepdims=True)
                logps = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
                counted = ~np.isin(ids[start:], untrained)
                features = encoded(sae, hidden[counted])
                label = np.arange(len(logps)), ids[start:]
                found[pair.row, side, when] = logps[label], features.mean(0)
    return found


def capped(pooled: np.ndarray, cap: int) -> np.ndarray:
    """Each row's largest features (n, d_sae) up to the cap, as a store holds the reference."""
    order = np.argsort(-pooled, 1, kind="stable")[:, cap:]
    pooled = pooled.copy()
    np.put_along_axis(pooled, order, 0, 1)
    return pooled


def contributions(policy: np.ndarray, reference: np.ndarray, config: TrainConfig) -> np.ndarray:
    """What each feature adds to each completion's D (eq. 10), written out: (n, d_sae) each."""
    parts = np.zeros_like(policy)
    for part, c, c_ref in zip(parts, policy, reference, strict=True):
        tops = [
            [i for i in np.argsort(-x, kind="stable")[: config.k] if x[i] > 0] for x in (c, c_ref)
        ]
        union = sorted({*tops[0], *tops[1]})
        scale = np.mean(c_ref[union] ** 2) if config.normalize_d else 1.0
        if scale > 0:
            part[union] = (c[union] - c_ref[union]) ** 2 / (config.k * scale)
    return parts


def encoded(sae: Any, hidden: np.ndarray) -> np.ndarray:
    """Features (n, d_sae) of activations, written out for the two kinds measured here."""
    pre = hidden @ np.asarray(sae.W_enc, np.float64) + sae.b_enc
    assert sae.input_transform == "none"
    if sae.architecture == "topk":
        active = np.zeros_like(pre, bool)
        order = np.argsort(-pre, 1, kind="stable")[:, : sae.k]
        np.put_along_axis(active, order, True, 1)
        return np.where(active, np.maximum(pre, 0), 0)
    if sae.architecture == "jumprelu":
        return np.where(pre > sae.threshold, pre, 0)
    assert sae.architecture == "relu"
    return np.maximum(pre, 0)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("part", choices=("build", "open", "numbers"))
    arguments.add_argument("--run", type=Path, help="a run with its report, for open and numbers")
    arguments.add_argument("--name", default="world", help="what the numbers are called")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--backend", default="torch", help="for numbers, perhaps several: a,b")
    arguments.add_argument("--pairs", type=int, help="for numbers: how many, by default the run's")
    options = arguments.parse_args()
    if options.part == "build":
        found = {options.backend: build(options.rounds, options.backend)}
    elif options.part == "open":
        opened = open_page(options.run, options.rounds)
        found = {f"load {os.getloadavg()[0]:.0f}": opened}
    else:
        found = {options.name: numbers(options.run, options.pairs, options.backend.split(","))}
    # Read only now: another part may have been measured in the meantime.
    whole = {k: v for k, v in read_result("report").items() if k in ("build", "open", "numbers")}
    whole[options.part] = whole.get(options.part, {}) | found
    print(json.dumps(found, indent=2))
    write_result("report", whole)


if __name__ == "__main__":
    main()
