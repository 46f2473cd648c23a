"""The evidence: statistics by hand, the judge's checks, and a document that is its results'."""

import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evidence.arms import ABLATIONS, ARMS, CONTRASTS, CONTROLLED
from benchmarks.evidence.controls import encoder_file, hidden_state, random_like
from benchmarks.evidence.feature_control import styles
from benchmarks.evidence.ground import Sampled
from benchmarks.evidence.intact import CHECKS, Detector
from benchmarks.evidence.judge_check import CORRUPTIONS
from benchmarks.evidence.moods import PARTS, Moods, part_of
from benchmarks.evidence.ranks import interval, ranks, spearman
from benchmarks.evidence.report import (
    DOCUMENT,
    control,
    differences,
    frontier,
    tuning,
    win_rates,
    wins,
    written,
)
from benchmarks.evidence.rows import mean_intact, mean_preference, mean_score
from benchmarks.evidence.runs import chosen
from benchmarks.evidence.statistics import best_less_best, detectable, estimate, holm
from fpo_core.arrays import numpy_ops
from fpo_core.judges.classifier import auc
from fpo_core.sae.discrepancy import discrepancy
from fpo_core.sae.sae import load_sae
from fpo_core.sae_training.folding import write_folded
from tests.helpers import random_sae


def test_the_document_is_what_its_results_say() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == written()


def test_ranks_share_ties() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]


def test_spearman_by_hand() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    # Ranks 1 2 3 4 against 2 1 4 3: 1 − 6·(1 + 1 + 1 + 1) / (4·15).
    assert spearman(x, np.array([5.0, 4.0, 9.0, 8.0])) == pytest.approx(0.6)
    assert np.isnan(spearman(x, np.ones(4)))


def test_an_interval_holds_what_it_estimates_and_narrows() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for count in (30, 300):
        x = generator.normal(size=count)
        low, high = interval(spearman, x, x + generator.normal(size=count))
        assert low < 0.69 < high  # ρ of a normal pair with correlation √½ is (6/π) asin(√½ / 2)
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_an_estimate_resamples_prompts_and_seeds() -> None:
    generator = np.random.default_rng(0)
    prompts = generator.normal(0.3, 1, 200)
    values = prompts + generator.normal(0, 0.1, (5, 1)) + generator.normal(0, 0.5, (5, 200))
    mean = estimate(values)
    assert mean.low < 0.3 < mean.high
    # Standard errors: 1 / √200 by prompts, 0.1 / √5 by seeds; what is left averages out.
    assert (mean.high - mean.low) / 3.92 == pytest.approx(np.hypot(0.071, 0.045), rel=0.3)
    assert mean.p < 0.01 < estimate(values - 0.3).p
    assert detectable(values) == pytest.approx(2.8 * np.hypot(0.071, 0.045), rel=0.3)


def test_the_best_is_chosen_anew_in_every_resample() -> None:
    generator = np.random.default_rng(0)
    level = generator.normal(0.5, 0.1, (9, 3, 60))
    one = best_less_best(level[:1], level[1:2])
    chosen_of_many = best_less_best(level, level[:1])
    assert one.low < 0 < one.high
    assert chosen_of_many.value > 0
    assert best_less_best(level, level) == best_less_best(level[:1] * 0, level[:1] * 0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.2]) == pytest.approx([0.04, 0.09, 0.09, 0.2])
    assert holm([]) == []


def row(arm, seed, scores, rate=1e-4, **metrics):
    samples = [{"p": p, "failed": failed} for p, failed in scores]
    own = {"raw_accuracy": 0.5, "perplexity": 10.0, "chosen_tokens": 20.0}
    change = {"learning_rate": rate, "beta": 2.0} if arm != "start" else {}
    return {"arm": arm, "seed": seed, "change": change, "samples": samples} | own | metrics


def test_a_sample_that_is_not_intact_scores_nothing() -> None:
    measured = row("fpo", 0, [(1.0, []), (0.8, ["repeats"]), (0.2, [])])
    assert mean_score(measured) == pytest.approx(0.4)
    assert mean_preference(measured) == pytest.approx(2 / 3)
    assert mean_intact(measured) == pytest.approx(2 / 3)


def test_tuning_chooses_by_the_score_and_says_so() -> None:
    rows = [
        row("start", 0, [(0.1, [])]),
        row("fpo", 0, [(0.5, [])]),
        row("fpo", 0, [(0.9, ["ends"])], rate=1e-3, kl_chosen=10.0),
    ]
    assert chosen(rows, "fpo")["learning_rate"] == 1e-4
    table = tuning({"tune": rows})
    assert [line[4] for line in table[1:]] == ["0.100", "**0.500**", "0.000"]
    assert table[3][8] == "0.5"


def test_the_frontier_is_of_means_over_seeds() -> None:
    rows = [
        row("start", 0, [(0.1, [])]),
        *(row("fpo", seed, [(0.4 + seed / 5, [])], kl_chosen=1.0) for seed in (0, 1)),
        *(row("fpo", seed, [(0.9, [])], rate=1e-3, kl_chosen=6.0) for seed in (0, 1)),
    ]
    (line,) = frontier({"frontier": rows})[1:]
    # 1 and 6 nats over 20 tokens: the second is beyond every KL but the largest.
    within = ["–", "–", "0.500", "0.500", "0.500", "0.900"]
    assert line == ["fpo", "2", "2", *within, "0.050", "0.050"]


def test_a_gain_on_the_frontier_is_over_the_start_of_the_same_seeds() -> None:
    """A start of 0.8 by chance at the first seed does not raise the goal for all three."""
    rows = [
        row("start", 0, [(0.8, [])]),
        *(row("fpo", seed, [(0.6, [])], kl_chosen=1.0) for seed in (0, 1, 2)),
    ]
    starts = [row("start", seed, [(p, [])]) for seed, p in ((0, 0.8), (1, 0.1), (2, 0.0))]
    (line,) = frontier({"frontier": rows, "test": starts})[1:]
    assert line[-2:] == ["0.050", "0.050"]  # 0.3 by the mean of the starts, 0.8 by the first


def test_a_share_of_resamples_is_no_more_than_all() -> None:
    assert estimate(np.zeros((3, 10))).p == 1


def test_styles_of_a_reply() -> None:
    assert styles("1. I like it!\n2. So?") == ["exclamation", "question", "list", "first person"]
    assert styles("Imagine 3.5 apples 🍎") == ["emoji"]


def test_control_of_features_is_paired_by_seed() -> None:
    def styled(arm, seed, count):
        samples = [{"p": 0.5, "failed": [], "styles": ["list"] * (i < count)} for i in range(4)]
        return row(arm, seed, []) | {"samples": samples}

    rows = [styled("start", 0, 4), *(styled("fpo", seed, 3) for seed in (0, 1, 2))]
    rows += [styled(name, seed, 1) for name in CONTROLLED for seed in (0, 1)]
    head, *lines = control({"test": rows})
    (line,) = (line for line in lines if line[0] == "list")
    assert line[:5] == ["list", "1.000", "0.750", "0.250", "0.250"]
    assert line[5].startswith("-0.500 [")
    assert len(head) == len(line)


def test_win_rates_count_ties_half() -> None:
    def sampled(arm, values):
        return row(arm, 0, [(p, []) for p in values]) | {"temperature": 0.2}

    rows = [sampled("fpo", [0.9, 0.5, 0.5, 0.1]), sampled("dpo", [0.1, 0.5, 0.2, 0.3])]
    head, *lines = win_rates({"sample": rows})
    assert head == ["temperature", "fpo, P·I", "fpo over dpo"]
    assert lines[0][2].startswith("0.625 [")


def test_wins_over_the_start_and_over_fpo() -> None:
    rows = [
        row("start", 0, [(0.5, []), (0.5, [])]),
        row("fpo", 0, [(0.9, []), (0.5, [])]),
        row("dpo", 0, [(0.2, []), (0.5, [])]),
    ]
    _, *lines = wins({"test": rows})
    cells = {name: [cell.split(" [")[0] for cell in others] for name, *others in lines}
    assert cells == {"fpo": ["0.750", "–", "–"], "dpo": ["0.250", "0.250", "–"]}


def test_differences_are_paired_by_prompt_and_seed() -> None:
    rows = [
        row("fpo", 0, [(0.9, []), (0.5, [])]),
        row("fpo", 1, [(0.8, []), (0.4, [])]),
        row("dpo", 1, [(0.2, []), (0.3, [])]),
        row("start", 0, [(0.1, []), (0.1, [])]),
    ]
    assert differences(rows, "fpo", "dpo") == pytest.approx(np.array([[0.6, 0.1]]))
    assert differences(rows, "fpo", "start") == pytest.approx(np.array([[0.8, 0.4], [0.7, 0.3]]))


def test_arms_are_known_by_their_contrasts() -> None:
    assert {*CONTRASTS} < {*ARMS}
    assert not {*ABLATIONS} & {*ARMS}


def test_prompts_are_in_one_part_alone() -> None:
    rows = [
        {"prompt": f"p{i}", "response": f"{mood} {i}", "of": mood, "mood": 3.0, "task": 3.0}
        for i in range(200)
        for mood in ("happy", "zen", "bored", "drunk")
    ]
    moods = Moods(rows)
    sizes = {part: len(moods.pairs(part)) for part in PARTS}
    prompts = {part: {row["prompt"] for row in moods.of(part)} for part in PARTS}
    assert sizes["train"] == 2 * len(prompts["train"])
    assert sizes["tune"] == len(prompts["tune"])
    assert sum(map(len, prompts.values())) == 200
    assert len(prompts["train"]) / 200 == pytest.approx(0.5, abs=0.1)
    assert part_of("p1") == part_of("p1")


class UnderEachPrompt:
    """Finds tokens of value i likely after a prompt of value i."""

    def score(self, batch):
        logps, lengths = [], []
        for tokens, start, end in zip(
            batch.tokens, batch.prompt_lengths, batch.lengths, strict=True
        ):
            completion = tokens[start:end]
            logps.append(sum(-0.1 if token == tokens[0] else -5.0 for token in completion))
            lengths.append(len(completion))
        return type("Scores", (), {"logps": np.array(logps), "lengths": np.array(lengths)})


def words_as_tokens(text, **_):
    names = ["rain", "sun"]
    ids = [names.index(word) if word in names else 7 for word in text.lower().strip(".").split()]
    return type("Encoded", (), {"input_ids": ids})


def detector():
    known = frozenset(["the", "rain", "and", "sun", "is", "of", "it", "to"])
    render = lambda prompt: [{"about rain": 0, "about sun": 1}.get(prompt, 9)]  # noqa: E731
    bounds = {"words": -0.3, "likely": -4.5, "relevant": 0.5}
    return Detector(UnderEachPrompt(), words_as_tokens, render, known, bounds)


@pytest.mark.parametrize(
    ("prompt", "text", "failed"),
    [
        ("about rain", "The rain is of the rain and it is rain.", set()),
        ("about sun", "The rain is of the rain and it is rain.", {"likely", "relevant"}),
        ("about rain", "The rain is of the rain and it is rain", {"ends"}),
        ("about rain", "la pluie est le temps de la rain et la rain.", {"english", "words"}),
        ("about rain", "the rain is of " * 5 + "rain.", {"repeats"}),
    ],
)
def test_checks_find_what_is_wrong(prompt, text, failed) -> None:
    judge = detector()
    passed = judge.passed(judge.values([Sampled(prompt, text)]))
    assert {name for name in CHECKS if not passed[name][0]} == failed


def test_an_answer_that_was_cut_needs_no_end() -> None:
    cut = Sampled("about rain", "The rain is of the rain and it is rain", cut=True)
    assert detector().values([cut])["ends"].tolist() == [1.0]


def test_bounds_turn_few_good_answers_away() -> None:
    good = [Sampled("about rain", "the rain is rain " + "rain " * i + ".") for i in range(40)]
    bounds = detector().calibrated(good).bounds
    likely = detector().values(good)["likely"]
    assert (likely < bounds["likely"]).mean() == pytest.approx(0.05, abs=0.03)


def test_corruptions_change_every_answer() -> None:
    answers = [
        Sampled(f"p{i}", f"One two three four five six {i}. Then it ends well.") for i in range(5)
    ]
    for corrupt in CORRUPTIONS.values():
        bad = corrupt(answers, random.Random(0))
        assert all(a != b for a, b in zip(answers, bad, strict=True))
    assert auc(np.array([1.0, 2.0, 0.0, 1.0]), np.array([True, True, False, False])) == 0.875


def test_random_directions_keep_their_lengths() -> None:
    sae = random_sae(8, 16)
    control = random_like(sae)
    lengths = [np.linalg.norm(weights, axis=0) for weights in (sae.W_enc, control.W_enc)]
    np.testing.assert_allclose(*lengths, rtol=1e-6)
    assert not np.allclose(sae.W_enc, control.W_enc)


def test_the_hidden_state_is_compared_by_its_squared_error(tmp_path: Path) -> None:
    sae = random_sae(4, 6)
    write_folded(tmp_path / "sae.safetensors", sae, "float32")
    control = load_sae(encoder_file("hidden state", tmp_path / "sae.safetensors", tmp_path))
    assert control.hook == load_sae(tmp_path / "sae.safetensors").hook
    h = np.random.default_rng(0).normal(size=(2, 4))
    moved = h + np.array([[1.0, -2.0, 0.0, 3.0], [0, 0, 0, 0]])
    reference, policy = (control.encode(numpy_ops, x) for x in (h, moved))
    found = discrepancy(numpy_ops, policy, reference, 4, normalize=False)[0]
    np.testing.assert_allclose(found, [(1 + 4 + 9) / 4, 0], atol=1e-5)
    assert hidden_state(sae).hook == sae.hook
