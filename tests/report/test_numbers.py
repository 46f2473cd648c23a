"""Every number of features and tokens against plain NumPy on the models' own dense outputs."""

import json

import numpy as np
import pytest

from fpo.reporting.known_reference import known_reference
from fpo.reporting.record import PER_NAT
from fpo.reporting.reread import inspect_again
from fpo.world import assets
from fpo_core.config import DataConfig, ReportConfig
from fpo_core.data.load import load_data
from fpo_core.data.tokenizer import load_tokenizer
from fpo_core.evaluation.inspection import reference_tokens
from fpo_core.events import silent
from fpo_core.sae.sae import load_sae
from fpo_core.train.paired_data import RunData, spread

K, CAP, HOOK_LAYER = 50, 60, 2


@pytest.fixture(scope="module")
def record(run):
    return json.loads((run.output / "report.json").read_text())


@pytest.fixture(scope="module")
def held_out():
    tokenizer = load_tokenizer(str(assets().model))
    data = DataConfig(data=str(assets().pairs), max_rows=24, max_seq_length=64)
    return load_data(data, tokenizer).valid, tokenizer


@pytest.fixture(scope="module")
def dense(run, settings, held_out):
    """Of every shown pair, by row: completions' ids, and per model log π and mean features."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    sae = load_sae(settings["sae"])
    base = AutoModelForCausalLM.from_pretrained(assets().model).eval()
    found = {}
    for name in ("before", "after"):
        model = base if name == "before" else PeftModel.from_pretrained(base, run.output).eval()
        for pair in held_out[0]:
            for side in ("chosen", "rejected"):
                ids = np.concatenate([pair.prompt, getattr(pair, side)])
                with torch.no_grad():
                    out = model(torch.tensor(ids[None]).long(), output_hidden_states=True)
                start = len(pair.prompt)
                logits = out.logits[0].double().numpy()[start - 1 : -1]
                hidden = out.hidden_states[HOOK_LAYER + 1][0].double().numpy()[start:]
                labels = ids[start:]
                shifted = logits - logits.max(1, keepdims=True)
                logps = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
                features = topk(hidden @ np.asarray(sae.W_enc, float) + sae.b_enc, sae.k)
                counted = features[[f"id:{i}" not in sae.untrained_tokens for i in labels]]
                key = pair.row, side, name
                found[key] = labels, logps[np.arange(len(labels)), labels], counted
    return found


def topk(pre, k):
    active = np.zeros_like(pre, bool)
    np.put_along_axis(active, np.argsort(-pre, 1, kind="stable")[:, :k], True, 1)
    return np.where(active, np.maximum(pre, 0), 0)


def test_tokens(record, dense):
    assert len(record["pairs"]) == 12
    for pair in record["pairs"]:
        for side in ("chosen", "rejected"):
            for name in ("before", "after"):
                _, logps, _ = dense[pair["row"], side, name]
                shown = np.array(pair[side][name]) / PER_NAT
                np.testing.assert_allclose(shown, logps, atol=0.5 / PER_NAT + 1e-5)


def test_what_a_record_shows_of_the_reference_is_not_computed_again(run, record, held_out):
    pairs, tokenizer = held_out
    rows = spread(len(pairs), 12)
    known = known_reference(run.output, record, pairs, rows, tokenizer)
    data = RunData(pairs, pairs, None, None)
    before = reference_tokens(None, data, pairs, rows, 4096, swap=True, known=known)
    shown = {pair["row"]: pair for pair in record["pairs"]}
    for place, row in enumerate(rows):
        pair = shown[pairs[row].row]
        for logps, side in zip(before.logps[2 * place :], ("chosen", "rejected"), strict=False):
            assert np.rint(logps * PER_NAT).tolist() == pair[side]["before"]


def test_a_pair_whose_text_changed_is_computed_again(run, record, held_out):
    pairs, tokenizer = held_out
    first = pairs[0].row
    changed = [pair | {"prompt": "?"} if pair["row"] == first else pair for pair in record["pairs"]]
    rows = spread(len(pairs), 12)
    again = known_reference(run.output, record | {"pairs": changed}, pairs, rows, tokenizer)
    assert sorted(again) == list(range(1, 12))


def means(dense, rows, side, name):
    return np.array([dense[row, side, name][2].mean(0) for row in rows])


def test_features(record, dense):
    rows = [pair["row"] for pair in record["pairs"]]
    total = np.zeros(2)
    for number, side in enumerate(("chosen", "rejected")):
        before, after = (means(dense, rows, side, name) for name in ("before", "after"))
        assert (before > 0).sum(1).max() > CAP
        # What the store cut off is 0 in D, as in training, and shown with its means.
        stored = np.array([np.where(np.isin(b, np.sort(b)[-CAP:]), b, 0) for b in before])
        d = np.array([contributions(a, b) for a, b in zip(after, stored, strict=True)])
        total[number] = d.sum(1).mean()
        for feature in record["features"]:
            i = feature["index"]
            assert feature["before"][number] == pytest.approx(before[:, i].mean(), abs=1e-5)
            assert feature["after"][number] == pytest.approx(after[:, i].mean(), abs=1e-5)
            assert feature["fires_before"][number] == pytest.approx(
                (before[:, i] > 0).mean(), abs=1e-5
            )
            assert feature["fires_after"][number] == pytest.approx(
                (after[:, i] > 0).mean(), abs=1e-5
            )
            assert feature["d"][number] == pytest.approx(d[:, i].mean(), rel=1e-3, abs=1e-8)
    np.testing.assert_allclose(record["d"], total, rtol=1e-4)
    assert total.min() > 0


def contributions(after, before):
    """(1/k) (c̄ − c̄_ref)² of the features among the k largest of either, the others 0."""
    union = {i for c in (after, before) for i in np.argsort(-c, kind="stable")[:K] if c[i] > 0}
    return np.array([(after[i] - before[i]) ** 2 / K * (i in union) for i in range(len(after))])


@pytest.fixture(scope="module")
def again(run):
    """The same pairs read again on either backend, with every feature."""

    def read(backend):
        config = ReportConfig(runs=(str(run.output),), shown_features=1024, backend=backend)
        return inspect_again(run.output, config, silent)

    return {backend: read(backend) for backend in ("torch", "mlx")}


def test_all_contributions_add_up_to_d(run, record, again):
    for found in again.values():
        sums = np.array([feature["d"] for feature in found["features"]]).sum(0)
        np.testing.assert_allclose(sums, found["d"], rtol=1e-5)
    # The report's pairs are those that the run measured.
    metrics = run.after.evaluation.metrics
    measured = [metrics["fpo/d_chosen"], metrics["fpo/d_rejected"]]
    np.testing.assert_allclose(record["d"], measured, rtol=1e-4)


def test_backends_show_the_same_numbers(record, again):
    left, right = again["torch"], again["mlx"]
    assert left["pairs"] == close(right["pairs"])
    by_index = {feature["index"]: feature for feature in right["features"]}
    for feature in left["features"]:
        other = by_index[feature["index"]]
        for name in ("before", "after", "fires_before", "fires_after", "d"):
            assert feature[name] == pytest.approx(other[name], abs=1e-3, rel=1e-3)
    first = [feature["index"] for feature in record["features"][:5]]
    assert first == [feature["index"] for feature in right["features"][:5]]
    assert left["features"][0]["promotes"] == right["features"][0]["promotes"]


def close(pairs):
    """Equal within a thousandth, as log-probabilities are stored."""
    return [
        pair
        | {"margin": pytest.approx(pair["margin"], abs=1e-3)}
        | {
            side: pair[side] | {n: pytest.approx(pair[side][n], abs=1) for n in ("before", "after")}
            for side in ("chosen", "rejected")
        }
        for pair in pairs
    ]


def test_contexts_hold_the_strongest_tokens(record, dense):
    texts = record["vocabulary"]
    for feature in record["features"][:10]:
        peaks = strongest(record, dense, feature["index"])
        shown = [max(context["activations"]) for context in feature["contexts"]]
        np.testing.assert_allclose(shown, peaks[: len(shown)], rtol=1e-3)
        for context in feature["contexts"]:
            assert len(context["tokens"]) == len(context["activations"])
            assert all(0 <= token < len(texts) for token in context["tokens"])


def strongest(record, dense, index):
    rows = [pair["row"] for pair in record["pairs"]]
    peaks = [
        dense[row, s, "after"][2][:, index].max() for row in rows for s in ("chosen", "rejected")
    ]
    return sorted((float(peak) for peak in peaks if peak > 0), reverse=True)
