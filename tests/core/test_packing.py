"""Where tokens stand in the layouts of a packed step, by hand and against the padded batch."""

import dataclasses

import numpy as np
import pytest

from fpo_core.data.batches import collate
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.evaluation.texts import sequences
from fpo_core.loss.dense import Targets
from fpo_core.loss.packing import Rectangles, Row, Run, chunk_rows
from tests.helpers import random_batch

# Prompt 5 6, chosen 7 8 9, rejected 7; prompt 4, chosen 3, rejected 2 1.
PAIRS = TokenisedPairs.from_lists([([5, 6], [7, 8, 9], [7]), ([4], [3], [2, 1])])


@pytest.fixture
def batch():
    return collate(PAIRS, [0, 1])


def test_a_row_runs_each_prompt_once(batch):
    row = Row.of(batch)
    assert row.tokens.tolist() == [5, 6, 7, 8, 9, 7, 4, 3, 2, 1]
    assert row.positions.tolist() == [0, 1, 2, 3, 4, 2, 0, 1, 1, 2]
    assert row.runs == (Run(2, (3, 1)), Run(1, (1, 2)))


def test_each_token_of_a_row_knows_its_run_and_part(batch):
    run, part = Row.of(batch).members()
    assert run.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert part.tolist() == [0, 0, 1, 1, 1, 2, 0, 1, 2, 2]


def test_scored_tokens_follow_the_order_of_the_batch(batch):
    scored = Row.of(batch, untrained=(8, 2)).scored
    assert scored.labels.tolist() == [7, 8, 9, 3, 7, 2, 1]
    assert scored.places.tolist() == [2, 3, 4, 7, 5, 8, 9]
    # the first of each completion is predicted by the prompt's last token
    assert scored.predictors.tolist() == [1, 2, 3, 6, 1, 6, 8]
    assert scored.spans.tolist() == [[0, 3], [3, 4], [4, 5], [5, 7]]
    assert scored.lengths.tolist() == [3, 1, 1, 2]
    assert scored.feature_lengths.tolist() == [2, 1, 1, 1]
    assert scored.shares[0].tolist() == [0.5, 0, 0.5, 0, 0, 0, 0]


def test_roots_and_branches_are_padded_separately(batch):
    row = Row.of(batch)
    layout = Rectangles.of(row.runs)
    tokens = np.append(row.tokens, 0)
    assert tokens[layout.roots].tolist() == [[5, 6], [4, 0]]
    assert tokens[layout.branches].tolist() == [[7, 8, 9], [7, 0, 0], [3, 0, 0], [2, 1, 0]]
    flat = np.concatenate([tokens[layout.roots].ravel(), tokens[layout.branches].ravel()])
    assert flat[layout.slots].tolist() == row.tokens.tolist()
    assert layout.prompts.tolist() == [2, 2, 1, 1]
    assert layout.fans == (2, 2)


def test_what_a_branch_sees(batch):
    layout = Rectangles.of(Row.of(batch).runs)
    seen = layout.visible(None)
    assert seen.shape == (4, 3, 5)
    assert seen[0].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert seen[2, 0].tolist() == [1, 0, 1, 0, 0]  # its prompt is one token, then padding
    window = layout.visible(2)
    assert window[0].tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]


def test_a_row_scores_what_the_plain_path_does():
    batch = random_batch(6)
    targets, start = Targets.of(batch, (5, 6))
    row = Row.of(batch, (5, 6))
    scored, flat = row.scored, row.tokens
    rows, columns = np.nonzero(targets.mask)
    assert scored.labels.tolist() == batch.tokens[rows, columns + start].tolist()
    assert flat[scored.places].tolist() == scored.labels.tolist()
    assert flat[scored.predictors].tolist() == batch.tokens[rows, columns + start - 1].tolist()
    assert scored.lengths.tolist() == targets.mask.sum(1).tolist()
    assert scored.feature_lengths.tolist() == targets.feature_mask.sum(1).tolist()
    assert (scored.membership.argmax(0) == rows).all()


def test_prompts_that_differ_are_not_shared(batch):
    tokens = batch.tokens.copy()
    tokens[0, 0] = 33
    other = dataclasses.replace(batch, tokens=tokens)
    assert Row.of(other).runs == (Run(0, (5,)), Run(0, (3,)), Run(1, (1, 2)))
    layout = Rectangles.of(Row.of(other).runs)
    assert layout.fans == (2,)
    assert layout.roots.tolist() == [[8, 12, 12, 12, 12], [0, 1, 2, 3, 4], [5, 6, 7, 12, 12]]
    assert layout.branches.tolist() == [[9, 12], [10, 11]]


SHARED = TokenisedPairs.from_lists(
    [([5, 6], [7, 8], [9]), ([4], [3], [2, 1]), ([5, 6], [7, 8], [10, 11]), ([5, 6], [9], [7])]
)
"""Three pairs of one prompt with four completions, chosen in one pair and rejected in another."""


def test_pairs_with_one_prompt_are_one_run_and_a_completion_of_several_stands_once():
    row = Row.of(collate(SHARED, range(4)), untrained=(8,))
    assert row.runs == (Run(2, (2, 1, 2, 1)), Run(1, (1, 2)))
    assert row.tokens.tolist() == [5, 6, 7, 8, 9, 10, 11, 7, 4, 3, 2, 1]
    assert row.positions.tolist() == [0, 1, 2, 3, 2, 2, 3, 2, 0, 1, 1, 2]
    scored = row.scored
    assert scored.labels.tolist() == [7, 8, 3, 9, 2, 1, 10, 11, 7]
    spans = [[0, 2], [2, 3], [0, 2], [3, 4], [3, 4], [4, 6], [6, 8], [8, 9]]
    assert scored.spans.tolist() == spans
    assert scored.membership.sum(1).tolist() == scored.lengths.tolist() == [2, 1, 2, 1, 1, 2, 2, 1]
    assert scored.feature_lengths.tolist() == [1, 1, 1, 1, 1, 2, 2, 1]
    assert Rectangles.of(row.runs).fans == (4, 2)


def test_every_completion_is_scored_for_each_of_its_pairs_where_asked():
    batch = collate(SHARED, range(4))
    once, every = Row.of(batch), Row.of(batch, every=True)
    assert every.tokens.tolist() == once.tokens.tolist()
    expected = [batch.tokens[i, p:n] for i, (p, n) in enumerate(lengths_of(batch))]
    assert every.scored.labels.tolist() == np.concatenate(expected).tolist()
    for scored in (once.scored, every.scored):
        for tokens, (start, end) in zip(expected, scored.spans, strict=True):
            assert scored.labels[start:end].tolist() == tokens.tolist()


def test_empty_prompts_and_completions_are_not_taken_for_others():
    pairs = TokenisedPairs.from_lists([([], [7, 8], [7, 8]), ([5], [], [6]), ([5], [6], [])])
    row = Row.of(collate(pairs, range(3)))
    assert row.runs == (Run(0, (2,)), Run(0, (2,)), Run(1, (0, 1)))
    assert row.scored.labels.tolist() == [8, 8, 6]
    assert row.scored.lengths.tolist() == [1, 0, 1, 1, 1, 0]


def lengths_of(batch):
    return zip(batch.prompt_lengths.tolist(), batch.lengths.tolist(), strict=True)


def test_sequences_that_are_no_pairs_run_alone():
    batch = sequences([[5, 6, 7], [8, 9]], [0, 2])
    row = Row.of(batch)
    assert row.runs == (Run(0, (3,)), Run(0, (2,)))
    assert row.scored.labels.tolist() == [6, 7]  # nothing predicts 5, and 8 9 is all prompt
    assert row.scored.lengths.tolist() == [2, 0]


def test_chunks_fit_the_budget_and_hold_a_row_at_least():
    assert chunk_rows(1, 2**10) == 2**8
    assert chunk_rows(1, 2**10, copies=4) == 2**6
    assert chunk_rows(1, 2**30) == 1
