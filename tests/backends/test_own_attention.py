"""Attention by hand, where MLX's own is slow, against MLX's: results and gradients."""

import mlx.core as mx
import numpy as np
import pytest

from fpo_mlx import attention
from fpo_mlx.attention import own_attention
from fpo_mlx.exponential import by_hand
from tests.backends.support import gradients, reference_of
from tests.helpers import random_batch

BATCH, HEADS, GROUPS, QUERIES, KEYS, WIDTH, VALUE = 3, 6, 2, 5, 9, 8, 4
SCALE = 0.3
CAUSAL = np.tril(np.ones((QUERIES, KEYS), bool), KEYS - QUERIES)
PADDED = CAUSAL & (np.arange(KEYS) >= np.arange(BATCH)[:, None, None, None])
MASKS = {
    "none": None,
    "causal": "causal",
    "array": CAUSAL,
    "window": CAUSAL & ~np.tril(CAUSAL, 1),
    "by sequence": PADDED,
    "added": np.where(PADDED, np.linspace(-2, 2, KEYS), -np.inf).astype(np.float32),
    "by head": np.broadcast_to(PADDED, (BATCH, HEADS, QUERIES, KEYS)),
}
OURS = [name for name in MASKS if name != "by head"]


@pytest.fixture(autouse=True)
def here_by_hand():
    if mx.metal.is_available():
        pytest.skip("Metal has a kernel of its own for attention, so this one is not in use there")
    assert by_hand(mx.zeros(1))


@pytest.fixture
def calls(monkeypatch):
    """How often attention was by hand, and what was kept."""
    found = []
    inner = attention._attention

    def count(*args):
        found.append(args[-1])
        return inner(*args)

    monkeypatch.setattr(attention, "_attention", count)
    return found


def arrays(dtype=mx.float32):
    shapes = [
        (BATCH, HEADS, QUERIES, WIDTH),
        (BATCH, GROUPS, KEYS, WIDTH),
        (BATCH, GROUPS, KEYS, VALUE),
        (BATCH, HEADS, QUERIES, VALUE),
    ]
    generator = np.random.default_rng(0)
    made = [mx.array(generator.standard_normal(shape, np.float32)) for shape in shapes]
    *given, outer = [x.astype(dtype) for x in made]
    return given, outer


def attend(mask, **kw):
    """What models ask MLX for, by whatever answers at the time."""
    mask = mask if isinstance(mask, str | None) else mx.array(mask)
    return lambda *given: mx.fast.scaled_dot_product_attention(*given, scale=SCALE, mask=mask, **kw)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("name", OURS)
def test_results_and_gradients_are_mlx_own(name, keep, calls):
    given, outer = arrays()
    expected = mx.vjp(attend(MASKS[name]), given, [outer])
    with own_attention(keep=keep, spread={}):
        found = mx.vjp(attend(MASKS[name]), given, [outer])
    assert calls == [keep]
    for mine, theirs in zip(found, expected, strict=True):
        for own, other in zip(mine, theirs, strict=True):
            assert own.shape == other.shape
            np.testing.assert_allclose(np.array(own), np.array(other), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("keep", [True, False])
def test_what_no_query_sees_has_no_part_at_all(keep):
    (q, k, v), outer = arrays()
    hidden = np.arange(KEYS) == KEYS - 1
    k, v = (mx.where(mx.array(hidden)[:, None], 1e6, x) for x in (k, v))
    with own_attention(keep=keep, spread={}):
        found, slopes = mx.vjp(attend(CAUSAL & ~hidden), [q, k, v], [outer])
    assert np.abs(np.array(found[0])).max() < 100
    for slope in slopes[1:]:
        assert np.array(slope).any()
        assert not np.array(slope)[:, :, hidden].any()


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_step_keeps_the_weights_where_blocks_are_checkpointed(checkpoint, make_policy, calls):
    policy = make_policy("mlx", grad_checkpoint=checkpoint)
    batch = random_batch(2)
    reference = reference_of(policy, batch)
    calls.clear()
    gradients(policy, [(batch, reference)])
    assert set(calls) == {checkpoint}


def test_masks_of_many_blocks_are_told_apart():
    given, _ = arrays()
    masks = [np.roll(CAUSAL, shift, axis=1) for shift in range(KEYS)]
    spread = {}
    for mask in masks:  # each is gone before the next, which may stand where it stood
        expected = attend(mask)(*given)
        with own_attention(keep=False, spread=spread):
            found = attend(mask)(*given)
        np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-5, atol=2e-6)
    assert 0 < len(spread) < len(masks)


@pytest.mark.parametrize("why", ["by head", "sinks", "half precision"])
def test_what_is_left_to_mlx(why, calls):
    given, _ = arrays(mx.float16 if why == "half precision" else mx.float32)
    mask = MASKS.get(why, "causal")
    kw = {"sinks": mx.zeros(HEADS)} if why == "sinks" else {}
    expected = attend(mask, **kw)(*given)
    with own_attention(keep=False, spread={}):
        found = attend(mask, **kw)(*given)
    assert calls == []
    np.testing.assert_array_equal(np.array(found), np.array(expected))


def test_mlx_has_its_attention_back_after_a_failure():
    mlx = mx.fast.scaled_dot_product_attention
    with pytest.raises(ZeroDivisionError), own_attention(keep=True, spread={}):
        raise ZeroDivisionError
    assert mx.fast.scaled_dot_product_attention is mlx
