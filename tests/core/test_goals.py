"""Reward-augmented rows by hand, where a goal stands in a prompt, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpo_core.errors import ConfigError, DataError
from fpo_core.pairs.goals import (
    GOAL_FILE,
    GoalTemplate,
    find_template,
    pass_on,
    require_template,
    row_of,
)
from fpo_core.pairs.pair import Pair, parse_pair
from tests.core.data_fixtures import assistant, user

SYSTEM = GoalTemplate("Aim at {goal} of {low}-{high}.", 1, 10, system=True)
USER = GoalTemplate("Aim at {goal} of {low}-{high}.", 1, 10)
TALK = Pair([assistant("good")], [assistant("bad")], [user("q")])
TEXT = Pair(" good", " bad", "q")


def rows(template, pair, scores, *, swap=True):
    return [row_of(row) for row in template.augment(pair, scores, swap=swap)]


def test_three_pairs_are_six_rows_by_hand():
    """Each with its swap: with a system role, without one, and as text."""
    briefed = Pair(
        [assistant("a")], [assistant("b")], [{"role": "system", "content": "Be."}, user("q")]
    )
    asked = [{"role": "system", "content": "Aim at 9 of 1-10."}, user("q")]
    low = [{"role": "system", "content": "Aim at 2.5 of 1-10."}, user("q")]
    assert rows(SYSTEM, TALK, (9, 2.5)) == [
        {"prompt": asked, "chosen": [assistant("good")], "rejected": [assistant("bad")]},
        {"prompt": low, "chosen": [assistant("bad")], "rejected": [assistant("good")]},
    ]
    first, second = rows(SYSTEM, briefed, (10, 1))
    assert first["prompt"][0]["content"] == "Be.\nAim at 10 of 1-10."
    assert (second["chosen"], second["rejected"]) == ([assistant("b")], [assistant("a")])
    assert rows(USER, TALK, (9, 2)) == [
        {
            "prompt": [user("Aim at 9 of 1-10.\nq")],
            "chosen": [assistant("good")],
            "rejected": [assistant("bad")],
        },
        {
            "prompt": [user("Aim at 2 of 1-10.\nq")],
            "chosen": [assistant("bad")],
            "rejected": [assistant("good")],
        },
    ]
    assert rows(USER, TEXT, (9, 2)) == [
        {"prompt": "Aim at 9 of 1-10.\nq", "chosen": " good", "rejected": " bad"},
        {"prompt": "Aim at 2 of 1-10.\nq", "chosen": " bad", "rejected": " good"},
    ]


@pytest.mark.parametrize("template", [SYSTEM, USER])
def test_the_control_prefers_the_chosen_side_twice(template):
    first, second = rows(template, TALK, (9, 2), swap=False)
    assert first["chosen"] == second["chosen"] == [assistant("good")]
    assert first["prompt"] != second["prompt"]


@given(st.floats(1, 10), st.floats(1, 10), st.sampled_from([SYSTEM, USER]))
def test_every_row_prefers_what_is_nearer_to_its_goal(chosen, rejected, template):
    """R(x, y, g) = −(g − r(y))² is higher for the chosen side of each row."""
    if chosen == rejected:
        return
    score = {"good": chosen, "bad": rejected}
    for goal, row in zip(
        (chosen, rejected), template.augment(TALK, (chosen, rejected), swap=True), strict=True
    ):
        reward = [-((goal - score[side[0]["content"]]) ** 2) for side in (row.chosen, row.rejected)]
        assert reward[0] >= reward[1]
        assert reward[0] == 0


def test_an_implicit_prompt_is_made_explicit():
    talk = Pair([user("q"), assistant("good")], [user("q"), assistant("bad")])
    first, _ = rows(USER, talk, (3, 1))
    assert first["prompt"] == [user("Aim at 3 of 1-10.\nq")]
    assert first["chosen"] == [assistant("good")]


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ConfigError, match="the goal is 11, expected one from 1 to 10"):
        USER.prompt("q", 11)
    with pytest.raises(DataError, match="row 3: the prompt is text, which has no system message"):
        SYSTEM.prompt("q", 5, "row 3")


def test_the_template_goes_with_the_model(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    for folder in (data, run / "best"):
        folder.mkdir(parents=True)
    SYSTEM.write(data)
    pass_on(str(data), run)
    assert find_template(None, str(run)) == SYSTEM
    assert find_template(str(run / "best")) == SYSTEM, "the best result lies in the run's folder"
    pass_on("user/data", run)
    assert not (run / GOAL_FILE).exists(), "an earlier run's template does not stay"
    with pytest.raises(ConfigError, match=r"no goal\.json beside the model"):
        require_template(str(run))
    for broken in ('{"format": "other"}', "[]", json.dumps({"text": 3})):
        (run / GOAL_FILE).write_text(broken)
        with pytest.raises(DataError):
            find_template(str(run))


@pytest.mark.parametrize(
    ("columns", "mapping", "scores"),
    [
        ({"score_chosen": 9.5, "score_rejected": 4}, {}, (9.5, 4)),
        ({"overall_score_chosen": 8, "overall_score_rejected": 6}, {}, (8, 6)),
        ({"chosen-rating": 5, "rejected-rating": 3}, {}, (5, 3)),
        ({"a": 1, "b": 2}, {"chosen_score": "a", "rejected_score": "b"}, (1, 2)),
        (
            {"score_chosen": 9, "score_rejected": 4},
            {"chosen_score": "c", "rejected_score": "d"},
            None,
        ),
        ({"score_chosen": "9", "score_rejected": 4}, {}, None),
        ({}, {}, None),
    ],
)
def test_scores_of_the_common_layouts(columns, mapping, scores):
    row = {"prompt": "q", "chosen": "a", "rejected": "b", **columns}
    assert parse_pair(row, 1, "row 1", mapping).scores == scores


def test_scores_of_a_ranked_list():
    replies = [{"response": "x", "overall_score": 3.0}, {"response": "y", "overall_score": 8.0}]
    assert parse_pair({"prompt": "q", "completions": replies}, 1, "row 1").scores == (8.0, 3.0)
