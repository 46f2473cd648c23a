"""What `fpo sae check` measures, on activations that a table gives to each token."""

import dataclasses

import numpy as np
import pytest

from fpo_core.arrays import numpy_ops
from fpo_core.data.chat_rows import chat_rows, first_pairs, raw_rows
from fpo_core.errors import DataError, SaeError
from fpo_core.pairs.pair import Pair
from fpo_core.sae.explained_variance import (
    Fit,
    check_texts,
    judge,
    memory_needed,
    tokens_at_once,
)
from fpo_core.sae.hook import Hook
from fpo_core.sae.sae import Sae
from fpo_core.sae.taps import Features

D, M, VOCABULARY = 6, 10, 30
BOS, SINK = 0, 7
ROWS = [[BOS, 3, 4, 5], [SINK, 9, 10], [11, 12, 13, 14, 15, 16, 2, 2], [20], [5, SINK, 3]]


class Table:
    """Activations that depend on the token alone."""

    ops = numpy_ops
    numpy = staticmethod(np.asarray)

    def __init__(self):
        self.rows = np.random.default_rng(0).normal(1.0, 1.0, (VOCABULARY, D)).astype(np.float32)
        self.rows[SINK] *= 100
        self.batches = []

    def read(self, tokens):
        assert tokens.dtype == np.int32
        self.batches.append(tokens.shape)
        return (self.rows[tokens],)


def sae(**changes):
    rng = np.random.default_rng(1)
    values = {
        "architecture": "relu",
        "d_in": D,
        "d_sae": M,
        "W_enc": rng.normal(size=(D, M)).astype(np.float32),
        "b_enc": np.concatenate([rng.normal(size=M - 2) - 1, [-1e6, -1e6]]).astype(np.float32),
        "W_dec": rng.normal(size=(M, D)).astype(np.float32) * 0.2,
        "b_dec": rng.normal(size=D).astype(np.float32),
    }
    return Sae(**(values | changes))


def tap(untrained=(BOS,), **changes):
    return Features.of(sae(**changes), Hook(0, "resid_post"), untrained)


def by_hand(table, features, tokens):
    """FVU, L0 and silent features of these tokens, one at a time in float64."""
    made = features.single.sae
    h = [table.rows[token].astype(np.float64) for token in tokens]
    c = [np.maximum(row @ made.W_enc + made.b_enc, 0) for row in h]
    errors = sum(
        ((row - (f @ made.W_dec + made.b_dec)) ** 2).sum() for row, f in zip(h, c, strict=True)
    )
    variance = sum(((row - np.mean(h, 0)) ** 2).sum() for row in h)
    return errors / variance, np.mean([(f > 0).sum() for f in c]), np.mean(~np.any(c, 0))


def test_every_number_from_its_definition():
    table, features = Table(), tap()
    found = check_texts(table, features, ROWS)
    counted = [token for row in ROWS for token in row if token != BOS]
    plain = [token for token in counted if token != SINK]
    unexplained, l0, dead = by_hand(table, features, plain)
    assert found.tokens == len(counted) == 18
    np.testing.assert_allclose(found.variance_unexplained, unexplained, rtol=1e-4)
    with_sinks, _, _ = by_hand(table, features, counted)
    np.testing.assert_allclose(found.with_outliers, with_sinks, rtol=1e-4)
    assert with_sinks != pytest.approx(unexplained, rel=0.1)
    np.testing.assert_allclose(found.l0, l0)
    assert found.dead_share == dead >= 0.2
    assert (found.outlier_share, found.outliers_first) == (2 / 18, 0.5)


def numbers(fit):
    return {k: v for k, v in dataclasses.asdict(fit).items() if k != "recovered"}


def test_batches_do_not_change_the_numbers():
    few, many = Table(), Table()
    alone = [check_texts(few, tap(), ROWS[2:4] * count) for count in (1, 400)]
    check_texts(many, tap(), [[5] * 300] * 9)
    assert many.batches == [(3, 300)] * 6, "the sample for outliers, then all"
    first, second = (dataclasses.replace(fit, tokens=0) for fit in alone)
    for name, value in numbers(first).items():
        np.testing.assert_allclose(getattr(second, name), value, rtol=1e-5)


@pytest.mark.parametrize("rows", [[[5] * 3, *[[5] * 300] * 99], [[5] * n for n in range(1, 400)]])
def test_a_short_row_among_long_ones_does_not_make_a_large_batch(rows):
    table = Table()
    assert check_texts(table, tap(), rows).tokens == sum(map(len, rows))
    assert max(count * width for count, width in table.batches) <= 1024


def test_a_row_longer_than_a_batch_is_encoded_in_parts(monkeypatch):
    widest, encode = [], Sae.encode
    monkeypatch.setattr(Sae, "encode", lambda s, xp, h: widest.append(len(h)) or encode(s, xp, h))
    long, short = [[3, 4, SINK, 5] * 700], [[3, 4, SINK, 5]] * 700
    alone, apart = (check_texts(Table(), tap(), rows) for rows in (long, short))
    assert max(widest) == 1024
    for name, value in numbers(apart).items():
        np.testing.assert_allclose(getattr(alone, name), value, rtol=1e-5)


def test_a_wide_autoencoder_encodes_fewer_tokens_at_once():
    assert [tokens_at_once(width) for width in (M, 16384, 131072, 1 << 25)] == [1024, 1024, 128, 1]
    wide = Sae(architecture="relu", d_in=8, d_sae=131072, W_enc=None, b_enc=None)
    features = 8 * 128 * 131072
    assert memory_needed(wide, [[1]]) == 4 * (2 * 8 * 131072 + features + 8 * 1024 * 8)
    longer = memory_needed(wide, [[1] * 3000, [2]]) - memory_needed(wide, [[1]])
    assert longer == 4 * 8 * (3000 - 1024) * 8


def test_outliers_are_told_by_rows_of_all_lengths():
    """Short rows of sinks alone do not make sinks the measure."""
    found = check_texts(Table(), tap(), [[SINK, SINK]] * 9 + [[3, 4, 5, 9, 10] * 20] * 9)
    assert found.outlier_share == 18 / 918


def test_a_perfect_and_a_silent_autoencoder():
    eye, zero = np.eye(D, dtype=np.float32), np.zeros(D, np.float32)
    both = np.concatenate([eye, -eye], 1)
    perfect = tap(d_sae=2 * D, W_enc=both, b_enc=np.zeros(2 * D, np.float32), W_dec=both.T)
    perfect = Features.of(dataclasses.replace(perfect.single.sae, b_dec=zero), perfect.single.hook)
    found = check_texts(Table(), perfect, ROWS)
    assert found.variance_unexplained < 1e-10
    assert found.l0 == D
    table = Table()
    mean = np.mean([table.rows[t] for row in ROWS for t in row if t not in (BOS, SINK)], 0)
    silent = tap(b_enc=np.full(M, -1e6, np.float32), b_dec=mean)
    found = check_texts(table, silent, ROWS)
    np.testing.assert_allclose(found.variance_unexplained, 1.0, rtol=1e-4)
    assert (found.l0, found.dead_share) == (0.0, 1.0)


def test_what_cannot_be_measured():
    with pytest.raises(SaeError, match="encoder_only"):
        check_texts(Table(), tap(W_dec=None, b_dec=None), ROWS)
    with pytest.raises(DataError, match="no token of these texts is one"):
        check_texts(Table(), tap(untrained=(3,)), [[3, 3]])


def fit(unexplained=0.2, **changes):
    plain = {"with_outliers": 0.2, "l0": 20.0, "dead_share": 0.1, "dense_share": 0.0}
    values = {"tokens": 10_000, "variance_unexplained": unexplained}
    values |= {"outlier_share": 0.0, "outliers_first": 0.0}
    return Fit(**(plain | values | changes))


@pytest.mark.parametrize(
    ("unexplained", "word"),
    [(0.35, "fits"), (0.36, "usable"), (0.61, "does not fit"), (np.nan, "does not fit")],
)
def test_the_word(unexplained, word):
    assert judge(fit(), fit(unexplained), 1000).word == word
    assert judge(fit(unexplained), None, 1000).word == word


@pytest.mark.parametrize(
    ("raw", "chat", "reason"),
    [
        (fit(), fit(0.31), "raw text is explained better (20% unexplained)"),
        (fit(), fit(l0=251.0), "not sparse"),
        (fit(), fit(dead_share=0.51), "51% of the features are never active"),
        (fit(), fit(outlier_share=0.013, outliers_first=1.0), "1.3% of the tokens"),
        (fit(), fit(0.9), "or set hook"),
    ],
)
def test_the_reasons(raw, chat, reason):
    assert reason in "; ".join(judge(raw, chat, 1000).reasons)
    assert len(judge(raw, fit(), 1000).reasons) == 1
    few = fit(dead_share=0.9, tokens=100)
    assert len(judge(few, None, 1000).reasons) == 1, "too few tokens to call a feature dead"


class Words:
    """A tokenizer of words whose template writes roles in capitals; BOS is 0."""

    chat_template: str | None = "yes"

    def __call__(self, text, add_special_tokens=True, verbose=False):
        ids = [len(word) for word in text.split()]
        return type("Encoding", (), {"input_ids": [0, *ids] if add_special_tokens else ids})()

    def apply_chat_template(self, messages, **settings):
        assert not settings["add_generation_prompt"]
        return " ".join(f"{m['role'].upper()} {m['content']}" for m in messages)


CHAT = Pair(
    prompt=[{"role": "user", "content": "a bb"}],
    chosen=[{"role": "assistant", "content": "ccc"}],
    rejected=[{"role": "assistant", "content": "dddd e"}],
)


def test_pairs_as_raw_text_and_as_chat():
    text = Pair(prompt="a bb", chosen=" ccc", rejected=" dddd e")
    assert raw_rows([text], Words(), 99) == [[0, 1, 2, 3], [0, 1, 2, 4, 1]]
    assert raw_rows([CHAT], Words(), 99) == [[0, 1, 2, 3], [0, 1, 2, 4, 1]]
    assert chat_rows([text], Words(), 99) == [[4, 1, 2, 9, 3], [4, 1, 2, 9, 4, 1]]
    assert chat_rows([text], Words(), 3) == [[4, 1, 2]] * 2
    bare = Words()
    bare.chat_template = None
    assert chat_rows([text], bare, 99) is None
    assert first_pairs(iter([text, CHAT, text]), 2) == [text, CHAT]
