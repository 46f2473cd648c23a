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
    assert scored.bounds.tolist() == [0, 3, 4, 5, 7]
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
    assert layout.shared == 2


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
    assert layout.shared == 1
    assert layout.roots.tolist() == [[8, 12, 12, 12, 12], [0, 1, 2, 3, 4], [5, 6, 7, 12, 12]]
    assert layout.branches.tolist() == [[9, 12], [10, 11]]


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
