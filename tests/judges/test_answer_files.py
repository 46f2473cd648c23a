"""Answers to files of prompts, and what a judge makes of them: the whole way through."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import fpo
from fpo.world import assets, score
from fpo_core.errors import ConfigError, DataError, JudgeError
from fpo_core.judges.answer_files import matched, read_answers, read_prompts

from .server import completion, serving

PROMPTS = [f"Tell me about the {color} lamp." for color in ("red", "old", "new", "green", "big")]


def prompts_file(folder: Path) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS))
    return path


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, answers: list[tuple[str, str]]) -> Path:
    lines = (json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in answers)
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_every_prompt_is_answered_and_a_killed_run_goes_on_to_the_same(backend, tmp_path) -> None:
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    options = {"prompts": prompts_file(tmp_path), "model": assets().model, "backend": backend}
    options |= {"samples": 2, "batch_size": 2, "max_tokens": 6}
    result = fpo.answer_prompts(**options, out=whole)
    assert (result.answers, result.generated) == (10, 10)
    answers = rows(whole)
    assert [row["prompt"] for row in answers] == [p for p in PROMPTS for _ in range(2)]
    assert [row["sample"] for row in answers] == [0, 1] * 5
    assert all(0 < row["tokens"] <= 6 for row in answers)
    assert len({row["completion"] for row in answers}) > 5
    # Cut in the middle of a line of the second batch, as a killed process leaves it.
    lines = whole.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:5]) + lines[5][:20])
    again = fpo.answer_prompts(**options, out=part)
    assert again.generated == 6
    assert part.read_text() == whole.read_text()
    assert fpo.answer_prompts(**options, out=part).generated == 0
    with pytest.raises(ConfigError, match="line 1 is not of these prompts, model and settings"):
        fpo.answer_prompts(**options, out=part, seed=1)
    assert part.read_text() == whole.read_text()


def test_answers_of_a_file_are_those_of_the_prompt_alone(tmp_path) -> None:
    greedy = {"model": assets().model, "backend": "torch", "temperature": 0, "max_tokens": 8}
    fpo.answer_prompts(prompts=prompts_file(tmp_path), out=tmp_path / "a.jsonl", **greedy)
    alone = fpo.generate(prompt=PROMPTS[1], **greedy).texts[0]
    assert rows(tmp_path / "a.jsonl")[1]["completion"] == alone


@pytest.mark.parametrize(
    "settings",
    [{}, {"prompt": "x", "prompts": "y"}, {"prompts": "y"}, {"prompt": "x", "out": "z"}],
)
def test_one_prompt_or_a_file_of_them(settings) -> None:
    with pytest.raises(ConfigError, match="set"):
        fpo.GenerateConfig(model="m", **settings)


def test_another_file_is_not_appended_to(tmp_path) -> None:
    (tmp_path / "notes.jsonl").write_text("my notes\n")
    with pytest.raises(ConfigError, match="not gone on with"):
        fpo.answer_prompts(
            prompts=prompts_file(tmp_path), out=tmp_path / "notes.jsonl", model=assets().model
        )
    assert (tmp_path / "notes.jsonl").read_text() == "my notes\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "one\n\ntwo\n"),
        ("a.jsonl", '"one"\n{"prompt": "two"}\n'),
        ("a.jsonl", '{"question": "one"}\n{"turns": ["two", "more"]}\n'),
        ("a.json", '[{"instruction": "one", "output": "x"}, {"instruction": "two"}]'),
        ("a.jsonl", '{"prompt": [{"role": "user", "content": "one"}]}\n{"prompt": "two"}'),
        ("bom.txt", "\ufeffone\r\ntwo\r\n"),
        ("bom.jsonl", '\ufeff"one"\n"two"\n'),
    ],
)
def test_prompts_are_read_from_many_layouts(name, text, tmp_path) -> None:
    (tmp_path / name).write_text(text)
    assert [prompt.text for prompt in read_prompts(tmp_path / name)] == ["one", "two"]


@pytest.mark.parametrize(
    "text",
    [
        *('{"text": "x"}', "[1]", "{", '{"prompt": 3}', '{"prompt": ""}'),
        '{"prompt": "half a pair: \\ud800"}',
    ],
)
def test_what_is_no_prompt_is_named_by_its_line(text, tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"prompt": "p"}}\n{text}\n')
    with pytest.raises(DataError, match="line 2"):
        read_prompts(tmp_path / "a.jsonl")


def test_answers_are_matched_by_prompt_whatever_their_order(tmp_path) -> None:
    a = read_answers(write(tmp_path / "a", [("p", "1"), ("q", "2"), ("p", "3")]))
    b = read_answers(write(tmp_path / "b", [("q", "x"), ("p", "y"), ("p", "z")]))
    pairs = matched(a, b, ("a", "b"))
    assert list(zip(pairs.prompts, pairs.a, pairs.b, strict=True)) == [
        *(("p", "1", "y"), ("q", "2", "x"), ("p", "3", "z"))
    ]
    with pytest.raises(DataError, match="'p'"):
        matched(a[:2], b, ("a", "b"))


def world_answers(folder: Path) -> tuple[Path, Path]:
    """Chosen replies of the world's pairs, and rejected ones, in another order."""
    pairs = [json.loads(line) for line in assets().valid.read_text().splitlines()[:12]]
    sides = [
        [(row["prompt"][-1]["content"], row[side][-1]["content"]) for row in pairs]
        for side in ("chosen", "rejected")
    ]
    return write(folder / "good.jsonl", sides[0]), write(folder / "bad.jsonl", sides[1][::-1])


def test_the_oracle_scores_and_compares(tmp_path) -> None:
    good, bad = world_answers(tmp_path)
    result = fpo.judge(answers=good, baseline=bad, judge="oracle", out=tmp_path / "out")
    assert result.wins is not None
    assert result.wins.rate is not None
    assert result.score is not None
    direct = [score(row["prompt"], row["completion"]).preferred for row in rows(good)]
    assert result.score.value == pytest.approx(np.mean(direct))
    assert result.wins.rate.value > 0.9
    saved = json.loads((tmp_path / "out/judged.json").read_text())
    assert saved["win_rate"]["value"] == result.wins.rate.value
    assert [row["score"] for row in rows(tmp_path / "out/pairs.jsonl")] == direct
    assert "<td>win rate</td>" in result._repr_html_()
    other = fpo.judge(answers=bad, baseline=good, by=lambda p, c: score(p, c).preferred)
    assert other.wins is not None
    assert other.wins.rate is not None
    assert other.wins.rate.value == pytest.approx(1 - result.wins.rate.value)


def test_without_a_baseline_answers_are_scored(tmp_path) -> None:
    good, _ = world_answers(tmp_path)
    (tmp_path / "rules.yaml").write_text("- words: [1, null]\n")
    result = fpo.judge(answers=good, judge=tmp_path / "rules.yaml")
    assert (result.wins, result.score and result.score.value) == (None, 1.0)


def test_labelled_answers_become_a_judge(tmp_path) -> None:
    good, bad = world_answers(tmp_path)
    labels = [{**row, "label": 1 - i} for i, side in enumerate((good, bad)) for row in rows(side)]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    notes: list[str] = []
    result = fpo.judge(
        answers=good, baseline=bad, judge=tmp_path / "labels.jsonl",
        sink=lambda event: notes.append(str(event.values.get("message"))),
    )  # fmt: skip
    assert result.wins is not None
    assert result.wins.rate is not None
    assert result.wins.rate.value > 0.7
    assert "AUC" in notes[0]


def test_an_endpoint_is_foretold_asked_and_kept(tmp_path, monkeypatch) -> None:
    good, bad = world_answers(tmp_path)
    monkeypatch.setenv("MY_KEY", "sk-secret")
    options = {"answers": good, "baseline": bad, "judge_model": "m", "judge_key_env": "MY_KEY"}
    options |= {"verdicts": tmp_path / "v.jsonl"}
    with serving(lambda body, n: completion("A")) as server:
        foretold = fpo.judge(**options, judge=server.url, dry_run=True, price_in=1.0)
        assert foretold.cost is not None
        assert foretold.cost.calls == 24
        assert foretold.price == pytest.approx(foretold.cost.tokens_in / 1e6)
        with pytest.raises(JudgeError, match="alpaca compares two answers"):
            fpo.judge(**options | {"baseline": None}, judge=server.url, dry_run=True)
        assert not server.requests
        result = fpo.judge(**options, judge=server.url)
        assert (result.disagreement, len(server.requests)) == (1.0, 24)
        assert result.wins is not None
        assert result.wins.rate is not None
        assert result.wins.rate.value == 0.5
        assert server.headers[0]["Authorization"] == "Bearer sk-secret"
        fpo.judge(**options, judge=server.url)
        assert len(server.requests) == 24
    assert "sk-secret" not in (tmp_path / "v.jsonl").read_text()


def test_exports_are_what_the_harnesses_read(tmp_path) -> None:
    """AlpacaEval's baseline is output_1 and a preference of 2 is for output_2."""
    good, bad = world_answers(tmp_path)
    formats = "alpaca-eval,arena-hard,mt-bench"
    out = tmp_path / "out"
    fpo.judge(answers=good, baseline=bad, judge="oracle", out=out, export=formats)
    outputs = json.loads((out / "alpaca-eval/good/model_outputs.json").read_text())
    assert {"instruction", "output", "generator"} <= {*outputs[0]}
    noted = json.loads((out / "alpaca-eval/annotations.json").read_text())
    assert noted[0]["output_2"] == outputs[0]["output"]
    assert np.mean([row["preference"] for row in noted]) > 1.9
    arena = rows(out / "arena-hard/model_answer/good.jsonl")
    asked = {row["uid"]: row["prompt"] for row in rows(out / "arena-hard/question.jsonl")}
    assert asked[arena[0]["uid"]] == arena[0]["messages"][0]["content"] == outputs[0]["instruction"]
    assert arena[0]["messages"][-1]["content"] == {"answer": outputs[0]["output"]}
    bench = rows(out / "mt-bench/model_answer/bad.jsonl")
    turns = {row["question_id"]: row["turns"] for row in rows(out / "mt-bench/question.jsonl")}
    assert turns[bench[0]["question_id"]] == [outputs[0]["instruction"]]
    assert bench[0]["choices"][0]["turns"] == [noted[0]["output_1"]]
    # What was exported is read again.
    assert [x.completion for x in read_answers(out / "alpaca-eval/good/model_outputs.json")] == [
        x.completion for x in read_answers(good)
    ]


def test_answers_of_one_file_name_are_exported_apart(tmp_path) -> None:
    for name, said in (("a", "yes"), ("b", "no")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "answers.jsonl", [("p", said)])
    files = [tmp_path / name / "answers.jsonl" for name in ("a", "b")]
    options = {"answers": files[0], "baseline": files[1], "out": tmp_path / "out"}
    fpo.judge(**options, by=length_of, export="alpaca-eval,arena-hard,mt-bench")
    outputs = (tmp_path / "out").glob("alpaca-eval/*/model_outputs.json")
    assert {json.loads(path.read_text())[0]["output"] for path in outputs} == {"yes", "no"}
    for name in ("arena-hard", "mt-bench"):
        assert len([*(tmp_path / "out" / name / "model_answer").iterdir()]) == 2


def length_of(prompt: str, completion: str) -> float:
    return float(len(completion)) if completion else float("nan")


def test_answers_without_a_score_are_told(tmp_path) -> None:
    some = write(tmp_path / "some.jsonl", [("p", "abc"), ("q", "")])
    result = fpo.judge(answers=some, by=length_of)
    assert result.score is not None
    assert (result.score.value, result.unscored) == (3.0, 1)
    assert ("without score", "1") in result.table().rows
    none = write(tmp_path / "none.jsonl", [("p", "")])
    result = fpo.judge(answers=none, by=length_of, out=tmp_path / "out")
    assert (result.score, result.unscored) == (None, 1)
    assert "NaN" not in (tmp_path / "out/judged.json").read_text()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"judge": None}, "judge is not set"),
        ({"judge": "http://localhost"}, "judge_model is not set"),
        ({"judge": "no such"}, "check its spelling"),
        ({"judge": "oracle", "export": ("x",)}, "export names 'x'"),
        ({"judge": "oracle", "export": ("mt-bench",)}, "set out"),
        ({"judge": "oracle", "dry_run": True}, "dry_run"),
    ],
)
def test_settings_that_judge_nothing_are_refused(settings, words, tmp_path) -> None:
    good, _ = world_answers(tmp_path)
    with pytest.raises(ConfigError, match=words):
        fpo.judge(answers=good, **settings)


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_eval_judges_samples_against_those_before(backend, tmp_path) -> None:
    """An adapter of zeros changes nothing: greedy samples are the same, and every pair ties."""
    world = {"model": assets().model, "data": assets().pairs, "backend": backend, "max_rows": 4}
    world |= {"max_seq_length": 64, "cache": tmp_path / "cache"}
    run = {"objective": "dpo-norm", "iters": 1, "learning_rate": 1e-12, "val_pairs": 2}
    fpo.train(**world, **run, output=tmp_path / "run", preflight=False)
    result = fpo.evaluate(
        **world, adapter=tmp_path / "run", objective="dpo-norm", samples=3, val_pairs=2,
        max_tokens=6, temperature=0, judge="tests.judges.test_answer_files:length",
    )  # fmt: skip
    assert result.judged is not None
    assert result.judged.wins is not None
    assert result.judged.wins.rate is not None
    assert (result.judged.wins.rate.value, result.judged.wins.pairs) == (0.5, 3)
    assert result.judged.after == result.judged.before
    assert result.judged.after is not None
    assert result.judged.after.value == np.mean([len(text) for text in result.after.completions])
    assert "win rate 0.500" in result.table().below[-1]


def test_a_judge_of_samples_reads_prompts_without_the_chat_template(tmp_path) -> None:
    """Many templates write a system prompt of their own, and no user asked for it."""
    model = tmp_path / "model"
    shutil.copytree(assets().model, model)
    template = model / "chat_template.jinja"
    system = "{{- bos_token + '<|system|>You are a lamp.<|end|>' -}}"
    template.write_text(template.read_text().replace("{{- bos_token -}}", system))
    pairs = [json.loads(line) for line in assets().valid.read_text().splitlines()]
    rules = [{"prompt": p["prompt"][-1]["content"], "rules": {"words": [1, None]}} for p in pairs]
    (tmp_path / "rules.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rules))
    settings = {"model": model, "data": assets().pairs, "backend": "torch", "max_rows": 4}
    settings |= {"max_seq_length": 96, "cache": tmp_path / "cache", "objective": "dpo-norm"}
    settings |= {"samples": 2, "val_pairs": 2, "max_tokens": 6}
    result = fpo.evaluate(**settings, judge=tmp_path / "rules.jsonl")
    assert result.judged is not None
    assert result.judged.after is not None
    assert result.judged.after.value == 1.0


def length(prompt: str, completion: str) -> int:
    assert "lamp" in prompt or prompt.strip()
    return len(completion)


def test_compare_judges_each_run_against_the_start(tmp_path) -> None:
    """At so small a rate greedy samples stay; then a second call judges what is there anew."""
    settings = {"model": assets().model, "data": assets().pairs, "max_rows": 6, "val_pairs": 2}
    settings |= {"max_seq_length": 64, "iters": 1, "learning_rate": 1e-12, "cache": tmp_path / "c"}
    file = tmp_path / "s.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
    options = {"settings": file, "objectives": "dpo-norm", "samples": 3, "max_tokens": 6}
    options |= {"eval_pairs": 2, "backend": "torch", "output": tmp_path / "out"}
    first = fpo.compare(**options)
    assert "win_rate" not in first.rows[0]
    (tmp_path / "rules.yaml").write_text("- words: [1, null]\n")
    judged = fpo.compare(**options, judge=tmp_path / "rules.yaml")
    assert judged.rows[0]["judge_score"] == 1.0
    assert judged.rows[0]["win_rate"] == 0.5
    assert judged.runs[0]["judged"]["pairs"] == 3
    assert "WR-L" in judged.table().head
