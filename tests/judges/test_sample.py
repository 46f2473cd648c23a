"""`fpo sample`: a model's own answers as pairs, best and worst by a judge."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import fpo
from fpo.world import assets
from fpo.world import score as oracle
from fpo_core.errors import ConfigError, JudgeError
from fpo_core.judges.best_worst import best_and_worst, scores_of
from fpo_core.judges.judge import FunctionJudge
from tests.judges.server import Raw, serving, texts

BACKENDS = ("torch", "mlx")
ASKED = [f"Tell me about the {colour} lamp." for colour in ("red", "old", "small", "new", "green")]
TEMPLATE = r"""reply: letter
user: "\x1e{prompt}\x1e{a}\x1e{b}\x1e"
"""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(ASKED))
    return path


def settings(prompts: Path, **changes: Any) -> dict[str, Any]:
    few = {"backend": "torch", "max_tokens": 24, "samples": 3, "batch_size": 2}
    return {"model": assets().model, "prompts": prompts} | few | changes


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_best_and_the_worst_make_a_pair(backend: str, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    ran = fpo.sample(**settings(prompts, backend=backend, judge="oracle", output=out))
    samples, pairs = lines(ran.samples_file), lines(out)
    assert ran.pairs + ran.tied == 5
    assert ran.unjudged == ran.no_verdict == 0
    assert (ran.samples, ran.generated, len(samples)) == (15, 15, 15)
    for pair in pairs:
        prompt, chosen, rejected = (
            pair[n][-1]["content"] for n in ("prompt", "chosen", "rejected")
        )
        group = [row for row in samples if row["prompt"] == prompt]
        scores = {row["completion"]: oracle(prompt, row["completion"]).preferred for row in group}
        assert scores[chosen] == pair["score_chosen"] == max(scores.values())
        assert scores[rejected] == pair["score_rejected"] == min(scores.values())
        assert pair["score_chosen"] > pair["score_rejected"]
    assert ran.mean_score == pytest.approx(sum(row["score"] for row in samples) / 15)


def test_the_pairs_feed_training_and_augmentation(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    made = fpo.sample(**settings(prompts, judge="oracle", output=out, samples=4))
    augmented = fpo.augment_data(data=out, out=tmp_path / "goals", scale="0:1", valid_fraction=0)
    assert augmented.splits["train"].rows == 2 * made.pairs
    quick = {"batch_size": 2, "iters": 1, "preflight": False, "report": False, "greedy_answers": 0}
    run = fpo.train(
        model=assets().model,
        data=out,
        objective="dpo",
        backend="torch",
        cache=tmp_path / "cache",
        output=tmp_path / "run",
        max_seq_length=128,
        **quick,
    )
    assert run.loop.state.step == 1


def test_a_run_that_ends_in_between_goes_on_and_judges_nothing_twice(
    prompts: Path, tmp_path: Path
) -> None:
    asked: list[tuple[str, str]] = []

    def judge(prompt: str, text: str) -> float:
        asked.append((prompt, text))
        if prompt == ASKED[3] and len(asked) < 14:
            raise KeyboardInterrupt
        return len(text)

    whole = fpo.sample(**settings(prompts, output=tmp_path / "whole.jsonl"), by=lambda p, t: len(t))
    cut = settings(prompts, output=tmp_path / "cut.jsonl")
    with pytest.raises(KeyboardInterrupt):
        fpo.sample(**cut, by=judge)
    assert len(lines(tmp_path / "cut.samples.jsonl")) == 6
    assert not (tmp_path / "cut.jsonl").exists()
    asked += [("", "")] * 14
    again = fpo.sample(**cut, by=judge)
    assert again.generated == 9
    assert {prompt for prompt, _ in asked[28:]} <= set(ASKED[2:])
    assert whole.pairs == again.pairs
    assert (tmp_path / "whole.jsonl").read_text() == (tmp_path / "cut.jsonl").read_text()
    assert fpo.sample(**cut, by=judge).generated == 0
    with pytest.raises(ConfigError, match="line 1 is not of these prompts, model and settings"):
        fpo.sample(**cut, by=judge, seed=1)


def test_ties_and_failures_are_counted(prompts: Path, tmp_path: Path) -> None:
    def judge(prompt: str, text: str) -> float:
        return {ASKED[0]: 1.0, ASKED[1]: math.nan}.get(prompt, float(len(text)))

    ran = fpo.sample(**settings(prompts, output=tmp_path / "p.jsonl", temperature=1.5), by=judge)
    assert (ran.tied, ran.unjudged, ran.no_verdict, ran.pairs) == (1, 1, 3, 3)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_others_wrote_is_not_replaced(kind: str, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.jsonl"
    kept = out / "notes.txt" if kind == "folder" else out
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("precious")
    with pytest.raises(ConfigError, match="was not written by this program"):
        fpo.sample(**settings(prompts, judge="oracle", output=out))
    assert kept.read_text() == "precious"
    assert not (tmp_path / "mine.samples.jsonl").exists()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.1, 0.7, 0.3], (1, 0)),
        ([0.7, 0.7, 0.1, 0.1], (0, 2)),
        ([math.nan, 0.2, 0.9], (2, 1)),
        ([0.5, 0.5], (0, 0)),
        ([math.nan, 0.5], None),
        ([], None),
    ],
)
def test_the_first_of_equals_counts(scores: list[float], expected: Any) -> None:
    assert best_and_worst(scores) == expected


class Comparing(FunctionJudge):
    """Prefers the longer text, without any score."""

    compares = True

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        raise AssertionError

    def prefer(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> list[float]:
        assert all(x != y for x, y in zip(a, b, strict=True))
        pairs = zip(a, b, strict=True)
        return [0.5 * ((len(x) > len(y)) + (len(x) >= len(y))) for x, y in pairs]


def test_a_judge_that_compares_ranks_by_its_mean_preference() -> None:
    judge = Comparing(lambda p, t: 0, "longer")
    found = scores_of(judge, ["p", "q"], [["aa", "b", "ccc", "dd", "b"], ["x", "x"]])
    assert found[0] == [pytest.approx(0.5), 0, 1, pytest.approx(0.5), 0]
    assert all(map(math.isnan, found[1]))


def test_an_endpoint_that_fails_leaves_what_was_judged(prompts: Path, tmp_path: Path) -> None:
    """The third batch gets no reply: nothing of it is written, and the same call asks only that."""
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    fails = True

    def answer(body: dict[str, Any], number: int) -> str | Raw:
        prompt, a, b = texts(body)
        if fails and prompt == ASKED[4]:
            return Raw(500, b"out of order")
        return "A" if len(a) > len(b) else "B"

    with serving(answer) as server:
        options = settings(
            prompts,
            output=tmp_path / "p.jsonl",
            judge=server.url,
            judge_model="m",
            samples=2,
            judge_template=tmp_path / "template.yaml",
            verdicts=tmp_path / "v.jsonl",
            judge_retries=0,
            judge_timeout=2,
        )
        with pytest.raises(
            JudgeError, match=r"no reply to .* start again; replies so far are kept"
        ):
            fpo.sample(**options)
        assert len(lines(tmp_path / "p.samples.jsonl")) == 8
        fails, before = False, len(server.requests)
        ran = fpo.sample(**options)
        assert {texts(body)[0] for body in server.requests[before:]} == {ASKED[4]}
    assert ran.generated == 2
    assert ran.pairs + ran.unjudged + ran.tied == 5


def test_without_a_judge_nothing_is_sampled(prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="judge is not set"):
        fpo.sample(**settings(prompts, output=tmp_path / "p.jsonl"))
    with pytest.raises(ConfigError, match="temperature is 0"):
        fpo.sample(**settings(prompts, output=tmp_path / "p.jsonl", temperature=0))
