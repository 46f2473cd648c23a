"""From scored pairs to goal-conditioned rows, a run on them, and its answers to a goal."""

import json
from pathlib import Path

import pytest

import fpo
from fpo.world import assets
from fpo_core.config import DataConfig
from fpo_core.data.sources import read_pairs
from fpo_core.data.splits import in_holdout
from fpo_core.errors import ConfigError, DataError
from fpo_core.pairs.messages import text_of

WORLD = assets()


def scored(folder: Path, rows: int = 40) -> Path:
    """Pairs with scores: every fifth tied, every seventh without, the second contradicted."""
    lines = WORLD.train.read_text(encoding="utf-8").splitlines()[:rows]
    path = folder / "scored.jsonl"
    with path.open("w") as file:
        for i, row in enumerate(map(json.loads, lines)):
            scores = {"score_chosen": 9, "score_rejected": 9 if i % 5 == 0 else 3.5}
            if i == 1:
                scores = {"score_chosen": 2, "score_rejected": 6}
            file.write(json.dumps(row | ({} if i % 7 == 6 else scores)) + "\n")
    return path


def test_ties_and_missing_scores_are_counted(tmp_path: Path) -> None:
    data = scored(tmp_path)
    made = fpo.augment_data(data=data, out=tmp_path / "out", valid_fraction=0.0)
    split = made.splits["train"]
    missing = len([i for i in range(40) if i % 7 == 6])
    tied = len([i for i in range(40) if i % 5 == 0 and i % 7 != 6])
    assert (split.pairs, split.unscored, split.tied, split.contradicted) == (40, missing, tied, 1)
    assert split.rows == 2 * (40 - missing - tied)
    rows = list(read_pairs(DataConfig(data=str(tmp_path / "out")))["train"])
    assert len(rows) == split.rows
    assert "tied" in made._repr_html_()


def test_prompts_are_held_out_before_rows_are_doubled(tmp_path: Path) -> None:
    data, out = scored(tmp_path), tmp_path / "out"
    fpo.augment_data(data=data, out=out, valid_fraction=0.3, seed=3)
    splits = read_pairs(DataConfig(data=str(out)))
    sides = {
        name: {frozenset(map(text_of, (p.chosen, p.rejected))) for p in pairs}
        for name, pairs in splits.items()
    }
    assert sides["train"]
    assert sides["valid"]
    assert not sides["train"] & sides["valid"], "both rows of a pair are in one split"
    held = [
        frozenset(map(text_of, (pair.chosen, pair.rejected)))
        for pair in read_pairs(DataConfig(data=str(data)))["train"]
        if in_holdout(pair, 0.3, 3)
    ]
    assert sides["valid"] <= set(held)


def test_the_worlds_oracle_and_any_function_judge(tmp_path: Path) -> None:
    made = fpo.augment_data(
        data=WORLD.train, out=tmp_path / "oracle", judge="world", max_rows=20, valid_fraction=0.0
    )
    assert made.splits["train"].rows == 40
    prompts = [text_of(p.prompt or "") for p in read_pairs(DataConfig(data=str(made.out)))["train"]]
    assert prompts[0].startswith("Answer with a quality of 10 on a scale from 1 to 10.\n")
    assert prompts[1].startswith("Answer with a quality of 1 on a scale from 1 to 10.\n")


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"scale": "1:5"}, DataError, "a score is 6, expected 1 to 5: set scale"),
        ({"scale": "10"}, ConfigError, "scale is '10', expected least and greatest"),
        ({"scores": "a"}, ConfigError, "scores names 1 columns"),
        ({"scores": "a,b"}, DataError, "no pair has two different scores"),
        ({"scores": "a,b", "judge": "world"}, ConfigError, "scores is set while judge is world"),
        ({"goal_text": "Be good."}, ConfigError, "expected {goal} in it"),
    ],
)
def test_what_cannot_be_augmented_is_refused(tmp_path, settings, error, said) -> None:
    with pytest.raises(error, match=said):
        fpo.augment_data(data=scored(tmp_path), out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_run_knows_its_goals(tmp_path: Path) -> None:
    fpo.augment_data(data=scored(tmp_path), out=tmp_path / "data", valid_fraction=0.2)
    shared = {"model": WORLD.model, "cache": tmp_path / "cache", "device": "cpu"}
    run = fpo.train(
        **shared,
        data=tmp_path / "data",
        output=tmp_path / "run",
        objective="dpo-norm",
        iters=2,
        max_seq_length=96,
        preflight=False,
    )
    asked = fpo.generate(
        model=WORLD.model, adapter=run.output, prompt="A pencil?", goal=10, device="cpu"
    )
    assert "Answer with a quality of 10 on a scale from 1 to 10.\nA pencil?" in asked.prompt
    measured = fpo.evaluate(
        **shared,
        adapter=run.output,
        data=WORLD.pairs,
        goal=10,
        max_rows=8,
        samples=2,
        objective="dpo-norm",
        max_seq_length=96,
    )
    plain = fpo.evaluate(
        **shared,
        adapter=run.output,
        data=WORLD.pairs,
        max_rows=8,
        samples=2,
        objective="dpo-norm",
        max_seq_length=96,
    )
    assert measured.metrics["logps/chosen"] != plain.metrics["logps/chosen"]
    with pytest.raises(ConfigError, match="goal is set, but there is no"):
        fpo.generate(model=WORLD.model, prompt="A pencil?", goal=10, device="cpu")
