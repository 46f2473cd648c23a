"""The verdict: six lines at most, and the right word for each situation."""

import itertools
import math
from typing import Any

import pytest

from fpo_core.evaluation.evaluate import Share
from fpo_core.evaluation.verdict import Findings, verdict


def found(**changes) -> Findings:
    usual = {
        "raw_before": 0.5,
        "raw": Share.of(0.96, 200),
        "reward": Share.of(0.98, 200),
        "reward_chosen": 0.1,
        "reward_rejected": -0.4,
        "kl_chosen": 2.0,
        "kl_rejected": 3.0,
        "d_chosen": 0.01,
        "d_rejected": 0.02,
        "perplexity_before": 10.0,
        "perplexity": 10.2,
        "alpha": 0.5,
        "constraint_ratio": 0.1,
    }
    return Findings(**(usual | changes))


def test_a_good_run() -> None:
    lines = verdict(found())
    assert lines[0].startswith("Learned? yes: raw accuracy 0.500 → 0.960 [0.923, 0.980]")
    assert "reward accuracy 0.980 [0.950, 0.992] (held-out pairs)" in lines[0]
    assert lines[1] == (
        "Drifted? within bounds: KL 2 chosen, 3 rejected; D 0.01 chosen, 0.02 rejected; "
        "perplexity 10 → 10.2 (+2.0%)."
    )
    assert lines[2] == "Constraint active? yes: α·D is 0.1 of the preference margin."
    assert lines[3] == "Both rewards falling? no: chosen +0.1, rejected -0.4."
    assert "nothing stands out" in lines[4]


@pytest.mark.parametrize(
    ("changes", "line", "word", "advice"),
    [
        ({"reward": Share.of(0.5, 50), "raw": Share.of(0.5, 50)}, 0, "unclear", "train longer"),
        ({"reward": Share.of(0.1, 50)}, 0, "no, the wrong way", "may be swapped"),
        ({"raw": Share.of(0.5, 50)}, 0, "in part", "near chance"),
        ({"perplexity": 12.0}, 1, "far", "lower learning_rate"),
        ({"kl_per_token": 0.8}, 1, "within bounds", "nothing stands out"),
        ({"kl_per_token": 0.8, "perplexity": None}, 1, "far", "lower learning_rate"),
        ({"perplexity": 2000.0}, 1, "200 times", "lower learning_rate"),
        ({"perplexity": math.nan}, 1, "broken", "no numbers"),
        ({"reward": Share.of(0.0, 50), "reward_chosen": math.nan}, 1, "broken", "no numbers"),
        ({"facts_before": 9, "facts": 6, "questions": 10}, 1, "broken", "lost what it could"),
        ({"facts_before": 3, "facts": 1, "questions": 10}, 1, "broken", "lost what it could"),
        ({"facts_before": 9, "facts": 7, "questions": 10}, 1, "9 → 7 of 10", "fewer are right"),
        ({"facts_before": 3, "facts": 2, "questions": 10}, 1, "within bounds", "fewer are right"),
        ({"facts_before": 7, "facts": 9, "questions": 10}, 1, "7 → 9", "nothing stands out"),
        ({"facts_before": 2, "facts": 0, "questions": 10}, 1, "within bounds", "nothing stands"),
        ({"repetition_before": 0.1, "repetition": 0.45}, 1, "broken", "lower learning_rate"),
        ({"repetition_before": 0.6, "repetition": 0.8}, 1, "0.60 → 0.80", "nothing stands out"),
        ({"constraint_ratio": 0.001}, 2, "hardly", "raise alpha"),
        ({"constraint_share": 0.03}, 2, "hardly: its gradient is 0.03 of", "raise alpha"),
        ({"constraint_share": 0.3}, 2, "yes: its gradient is 0.3 of", "nothing stands out"),
        ({"constraint_share": 0.03, "d_floor": 0.006}, 2, "not told: D 0.02", "nothing stands"),
        ({"constraint_share": 0.3, "d_floor": 0.004}, 2, "yes", "nothing stands out"),
        ({"reward_chosen": -0.1}, 3, "yes", "lose likelihood"),
        ({"held_out": False}, 0, "none were held out", "valid_fraction"),
        ({"alpha": 0.0, "constraint_ratio": None}, 2, "none", "nothing stands out"),
        (
            {"constraint_ratio": 3.0, "reward": Share.of(0.5, 50)},
            2,
            "outweighs",
            "lower alpha",
        ),
        (
            {"constraint_share": 3.0, "reward": Share.of(0.5, 50)},
            2,
            "outweighs",
            "lower alpha",
        ),
    ],
)
def test_each_trouble_has_its_word_and_its_advice(changes, line, word, advice) -> None:
    lines = verdict(found(**changes))
    assert word in lines[line]
    assert advice in lines[-1]


def test_an_early_end_is_told() -> None:
    lines = verdict(found(early_end="after step 5 of 9: loss was no better"))
    assert lines[-2] == "Stopped early? yes, after step 5 of 9: loss was no better."


def test_a_model_alone_is_not_judged_against_anything() -> None:
    lines = verdict(Findings(raw=Share.of(0.6, 100), perplexity=5.0))
    assert len(lines) == 2
    assert "reward accuracy needs an adapter or a base" in lines[0]


def test_never_more_than_six_lines_and_never_a_crash() -> None:
    optional = (
        "kl_chosen",
        "kl_rejected",
        "d_rejected",
        "perplexity",
        "constraint_ratio",
        "reward",
    )
    for chosen in itertools.product((True, False), repeat=len(optional)):
        absent: dict[str, Any] = {"early_end": "after step 5 of 9"}
        absent |= {name: None for name, keep in zip(optional, chosen, strict=True) if not keep}
        lines = verdict(found(**absent))
        assert 1 <= len(lines) <= 6
        assert all(line and "\n" not in line for line in lines)
