"""Attention over a packed row: both forms against attention of each sequence by itself."""

import numpy as np
import pytest
import torch

from fpo_core.loss.packing import Row
from fpo_torch.kernels.flex_row import FlexRow
from fpo_torch.kernels.packed_attention import Settings
from fpo_torch.kernels.run_attention import RunByRun
from tests.helpers import random_batch

HEADS, GROUPS, WIDTH = 4, 2, 16


def alone(query, key, value, settings):
    """One sequence, (t, heads, d) each, in float64."""
    key, value = (x.repeat_interleave(GROUPS, 1) for x in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * settings.scaling
    if settings.softcap is not None:
        scores = torch.tanh(scores / settings.softcap) * settings.softcap
    place = torch.arange(len(query))
    distance = place[:, None] - place
    seen = (distance >= 0) & (distance < (settings.window or len(query)))
    return torch.einsum("hqk,khd->qhd", scores.where(seen, -torch.inf).softmax(-1), value)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 3, 100])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["runs", "flex"])
def test_a_row_attends_as_its_sequences_do(kind, shared, window, softcap):
    batch = random_batch(3)
    if not shared:
        batch.tokens[0, 0] += 1
    row = Row.of(batch)
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, len(row.tokens), WIDTH) for heads in (HEADS, GROUPS, GROUPS)]
    query, key, value = (torch.randn(shape, generator=generator) for shape in shapes)
    settings = Settings(0.3, window, softcap, HEADS // GROUPS)
    attention = RunByRun(row.runs)
    if kind == "flex":  # traced as on a GPU, computed without its kernel
        torch.compiler.reset()  # after eight shapes dynamo would run it untraced
        flex = FlexRow(row, [None, window], query.device)
        attention = torch.compile(flex.__call__, backend="aot_eager")
    found = attention(query, key, value, settings)[0].transpose(0, 1)
    run, part = row.members()
    for number in range(run.max() + 1):
        for own in np.unique(part[run == number]):
            places = np.flatnonzero((run == number) & ((part == 0) | (part == own)))
            flat = [x[0].transpose(0, 1)[places].double() for x in (query, key, value)]
            expected = alone(*flat, settings)[part[places] == own]
            torch.testing.assert_close(
                found[places[part[places] == own]], expected.float(), rtol=1e-5, atol=1e-5
            )
