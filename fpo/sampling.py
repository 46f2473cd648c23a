"""Preference pairs of a model's own samples: of each prompt the best and the worst by a judge."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo.answer_file import AnswerPlan
from fpo.judge_choice import JudgeLike, choose_judge
from fpo.model_setup import ModelSetup
from fpo.results import Result, Table, shown
from fpo.workflow import workflow
from fpo_core.config import SampleConfig
from fpo_core.events import Sink
from fpo_core.io.atomic import write_atomically
from fpo_core.io.ownership import check_foreign, check_inputs
from fpo_core.judges.answer_files import as_lines, read_prompts
from fpo_core.judges.best_worst import best_and_worst


@dataclass(frozen=True)
class SampledPairs(Result):
    """A file of pairs in TRL's format, with scores, and what became of each prompt."""

    output: Path
    samples_file: Path
    """Every sample with its score."""
    backend: str
    model: str
    adapter: str | None
    judge: str
    prompts: int
    samples: int
    generated: int
    """Samples of this call; the others were there."""
    pairs: int
    tied: int
    """Prompts left out: all of their samples have one score."""
    unjudged: int
    """Prompts left out: fewer than two samples have a verdict."""
    no_verdict: int
    """Samples without a verdict."""
    mean_score: float | None

    def table(self) -> Table:
        """A count a row."""
        names = ("prompts", "samples", "pairs", "tied", "unjudged", "no_verdict", "mean_score")
        return Table(
            ("", ""), [(name.replace("_", " "), shown(getattr(self, name))) for name in names]
        )


@workflow(SampleConfig)
def sample(config: SampleConfig, sink: Sink, by: JudgeLike | None = None) -> SampledPairs:
    """Sample several answers to each prompt; the best and the worst by a judge make a pair.

    Pairs are conversations where there is a chat template, else texts, with `score_chosen` and
    `score_rejected`: training and augmentation read them. Samples and scores are appended to a file
    beside `output` batch by batch; stopped at any point, the same call goes on there and judges
    nothing twice. `by` is a judge, or a function of a prompt and a completion, in place of the
    setting. Raises JudgeError where the judge fails.
    """
    output = Path(config.output)
    beside = output.with_name(f"{output.stem}.samples.jsonl")
    check_inputs([output, beside], {"prompts": config.prompts, "model": config.model}, "output")
    check_foreign([output], lambda path: path.is_file() and beside.is_file())
    prompts = [prompt.text for prompt in read_prompts(Path(config.prompts))]
    setup = ModelSetup(config)
    judge = choose_judge(config, config, sink, config.cache, by)
    plan = AnswerPlan(beside, prompts, setup, config, judge)
    generated = plan.complete(sink)
    rows = plan.rows()
    pairs, counts = [], {"tied": 0, "unjudged": 0}
    for start in range(0, len(rows), config.samples):
        group = rows[start : start + config.samples]
        places = best_and_worst([float("nan") if r["score"] is None else r["score"] for r in group])
        if places is None or places[0] == places[1]:
            counts["unjudged" if places is None else "tied"] += 1
        else:
            pairs.append(_pair(setup, config, group[places[0]], group[places[1]]))
    text = as_lines(pairs)
    write_atomically(output, lambda path: path.write_text(text, encoding="utf-8"))
    scores = [row["score"] for row in rows if row["score"] is not None]
    return SampledPairs(
        output=output,
        samples_file=beside,
        backend=setup.backend,
        model=config.model,
        adapter=config.adapter,
        judge=judge.name,
        prompts=len(prompts),
        samples=len(rows),
        generated=generated,
        pairs=len(pairs),
        **counts,
        no_verdict=len(rows) - len(scores),
        mean_score=sum(scores) / len(scores) if scores else None,
    )


def _pair(
    setup: ModelSetup, config: SampleConfig, best: dict[str, Any], worst: dict[str, Any]
) -> dict[str, Any]:
    """A row in TRL's conversational format, or as texts for a model that continues them."""
    scores = {"score_chosen": best["score"], "score_rejected": worst["score"]}
    texts = [best["completion"], worst["completion"]]
    if config.ignore_chat_template or not setup.tokenizer.chat_template:
        return {"prompt": best["prompt"], "chosen": texts[0], "rejected": texts[1], **scores}
    turns = [{"role": "user", "content": best["prompt"]}]
    if config.system_prompt is not None:
        turns.insert(0, {"role": "system", "content": config.system_prompt})
    sides = [[{"role": "assistant", "content": text}] for text in texts]
    return {"prompt": turns, "chosen": sides[0], "rejected": sides[1], **scores}
