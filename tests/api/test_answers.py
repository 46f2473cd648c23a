"""Greedy answers before and after, on both backends: shown, kept, and judged."""

import json
from pathlib import Path
from typing import Any

import pytest

import fpo
from fpo.world import assets

BACKENDS = ("torch", "mlx")
ASKED = ("Is the old pencil a fair choice for my mother?", "Should Mina order the new jacket?")


@pytest.fixture(scope="module")
def known(cache: Path) -> Path:
    """Questions to which the world's model answers as it does at the start, word by word."""
    path = cache / "known.jsonl"
    rows = []
    for i in range(4):
        prompt = f"{ASKED[i % 2]} {'Please.' * (i // 2)}".strip()
        said = answer(prompt, backend="torch")
        rows.append({"prompt": prompt, "expected": said.strip("{}").split(":")[1].split('"')[1]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(prompt: str, **options: Any) -> str:
    greedy: dict[str, Any] = {"temperature": 0, "max_tokens": 32} | options
    return fpo.generate(model=assets().model, prompt=prompt, **greedy).texts[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_keeps_its_answers(backend: str, small, steps, known: Path, tmp_path: Path) -> None:
    settings = small | steps | {"backend": backend, "prompts": known, "greedy_answers": 2}
    seen: list[fpo.Event] = []
    run = fpo.train(**settings, output=tmp_path / "run", learning_rate=1e-7, sink=seen.append)
    samples = run.metrics["samples"]
    assert [s["kind"] for s in samples] == ["held-out"] * 2 + ["general"] * 4
    assert all("<" not in s["prompt"] and s["prompt"].strip() for s in samples)
    for sample in samples[2:]:
        said = answer(sample["prompt"], backend=backend)
        assert sample["before"] == sample["after"] == said
        assert sample["right_before"] is sample["right_after"] is True
    assert run.metrics["facts"] == run.metrics["questions"] == 4
    assert run.to_mapping()["after"]["samples"] == samples
    assert "samples" not in run.to_mapping()["before"]
    assert "general questions right 4 → 4 of 4" in run.verdict[1]
    assert "within bounds" in run.verdict[1]
    card = (run.output / "README.md").read_text()
    assert "## Answers" in card
    assert f"| {samples[2]['prompt']} | ✓ " in card
    counts = [e.values for e in seen if e.values.get("label") == "greedy answers: token"]
    assert counts[-1]["done"] == counts[-1]["total"] == 6 * 32
    evaluated = fpo.evaluate(
        **small | {"backend": backend},
        adapter=run.output,
        prompts=known,
        greedy_answers=2,
        samples=0,
    )
    assert evaluated.metrics["samples"] == samples
    alone = fpo.evaluate(**small | {"backend": backend}, prompts=known, greedy_answers=1, samples=0)
    assert [{*s} for s in alone.metrics["samples"][:2]] == [
        {"kind", "prompt", "after"},
        {"kind", "prompt", "after", "expected", "right_after"},
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_loses_what_the_model_knew_is_broken(
    backend: str, small, steps, known: Path, tmp_path: Path
) -> None:
    settings = small | steps | {"backend": backend, "prompts": known, "iters": 6}
    settings |= {"learning_rate": 0.5, "steps_per_eval": 6, "output": tmp_path / "run"}
    run = fpo.train(**settings)
    assert run.metrics["facts"] <= 2
    assert run.verdict[1].startswith("Drifted? broken: ")
    assert "the model lost what it could say before" in run.verdict[-1]


def test_a_model_that_knows_nothing_is_not_judged_by_it(run: fpo.TrainingRun) -> None:
    """The world's model cannot answer general questions, before or after."""
    assert run.metrics["questions"] == 10
    assert run.metrics["facts"] <= 2
    assert "within bounds" in run.verdict[1]
    assert "general questions" not in run.verdict[1]


def test_none_are_asked_where_none_are_wanted(small, steps, tmp_path: Path) -> None:
    run = fpo.train(**small, **steps, output=tmp_path / "run", greedy_answers=0)
    assert "samples" not in run.metrics
    assert "facts" not in run.metrics
    assert "## Answers" not in (run.output / "README.md").read_text()
