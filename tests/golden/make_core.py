"""Makes fpo_core/golden.json: ramps, and what the formulas say of them in plain Python.

Nothing of fpo_core is used, so that the file is a second opinion. Run from the root of the tree:
python tests/golden/make_core.py
"""

import json
import math
from pathlib import Path

FILE = Path(__file__).parents[2] / "fpo_core" / "golden.json"
PAIRS, TOKENS, VOCAB, D_IN, D_SAE = 2, 5, 7, 3, 8
SETTINGS = {"alpha": 2.0, "beta": 0.5, "k": 2, "normalize_d": False}
SAE_K = 3
"""Active features of the top-k autoencoders."""


def ramp(*shape, step, scale=1.0):
    """Nested lists of scale · sin(step · (1 + index)), the index counted over all entries."""
    count = math.prod(shape)
    flat = [scale * math.sin(step * (1 + i)) for i in range(count)]
    for size in reversed(shape[1:]):
        flat = [flat[i : i + size] for i in range(0, len(flat), size)]
    return flat


def make_inputs():
    """Four sequences of five tokens; prompts, padding and untrained tokens are masked."""
    rows = 2 * PAIRS
    return {
        "logits": ramp(rows, TOKENS, VOCAB, step=0.7, scale=2.0),
        "reference_logits": ramp(rows, TOKENS, VOCAB, step=0.9, scale=2.0),
        "labels": [[(3 * i + 5 * j) % VOCAB for j in range(TOKENS)] for i in range(rows)],
        "mask": [[0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 1]],
        "feature_mask": [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]],
        "hidden": ramp(rows, TOKENS, D_IN, step=1.3, scale=1.5),
        "W_enc": ramp(D_IN, D_SAE, step=1.1),
        "b_enc": ramp(D_SAE, step=0.5, scale=0.2),
        "threshold": [0.1 * (i % 4) for i in range(D_SAE)],
        "reference_logps": [-4.0, -7.5, -6.0, -5.25],
        "reference_pooled": [
            [max(0.0, x) for x in row] for row in ramp(rows, D_SAE, step=0.4, scale=0.8)
        ],
    }


def log_softmax(row):
    total = math.log(sum(math.exp(x) for x in row))
    return [x - total for x in row]


def activate(pre, architecture, threshold):
    relu = [max(0.0, x) for x in pre]
    if architecture == "relu":
        return relu
    if architecture == "jumprelu":
        return [r if x > t else 0.0 for r, x, t in zip(relu, pre, threshold, strict=True)]
    top = sorted(range(len(pre)), key=lambda i: (-pre[i], i))[:SAE_K]
    return [r if i in top else 0.0 for i, r in enumerate(relu)]


def top(row, k):
    order = sorted(range(len(row)), key=lambda i: (-abs(row[i]), i))[:k]
    return {i for i in order if row[i] != 0}


def of_tokens(inputs, row):
    """logps, lengths, kl and entropy of one sequence."""
    logps = kl = entropy = 0.0
    for t, counts in enumerate(inputs["mask"][row]):
        if not counts:
            continue
        policy = log_softmax(inputs["logits"][row][t])
        reference = log_softmax(inputs["reference_logits"][row][t])
        logps += policy[inputs["labels"][row][t]]
        pairs = zip(policy, reference, strict=True)
        kl += sum(math.exp(r) * (r - p) for p, r in pairs)
        entropy -= sum(math.exp(p) * p for p in policy)
    return {"logps": logps, "lengths": sum(inputs["mask"][row]), "kl": kl, "entropy": entropy}


def of_features(inputs, row, architecture):
    """pooled, d and union of one sequence."""
    total, count = [0.0] * D_SAE, 0
    for t, counts in enumerate(inputs["feature_mask"][row]):
        if counts:
            h, count = inputs["hidden"][row][t], count + 1
            columns = zip(*inputs["W_enc"], strict=True)
            pre = [
                sum(x * w for x, w in zip(h, column, strict=True)) + b
                for column, b in zip(columns, inputs["b_enc"], strict=True)
            ]
            c = activate(pre, architecture, inputs["threshold"])
            total = [a + b for a, b in zip(total, c, strict=True)]
    pooled = [x / max(count, 1) for x in total]
    reference, k = inputs["reference_pooled"][row], SETTINGS["k"]
    union = top(pooled, k) | top(reference, k)
    d = sum((pooled[i] - reference[i]) ** 2 for i in union) / k
    return {"pooled": pooled, "d": d, "union": len(union)}


def expected(inputs, architecture):
    """Every score by name, and FPO's loss of each pair."""
    rows = range(2 * PAIRS)
    each = [of_tokens(inputs, row) | of_features(inputs, row, architecture) for row in rows]
    scores = {name: [row[name] for row in each] for name in each[0]}
    alpha, beta = SETTINGS["alpha"], SETTINGS["beta"]
    losses = []
    for w in range(PAIRS):
        chosen, rejected = each[w], each[w + PAIRS]
        policy = chosen["logps"] / chosen["lengths"] - rejected["logps"] / rejected["lengths"]
        stored = inputs["reference_logps"]
        reference = stored[w] / chosen["lengths"] - stored[w + PAIRS] / rejected["lengths"]
        u = beta * (policy - reference - alpha * (rejected["d"] - chosen["d"]))
        losses.append(math.log1p(math.exp(-u)))
    return scores | {"losses": losses}


def make():
    """The whole content of the file."""
    inputs = make_inputs()
    kinds = ("relu", "jumprelu", "topk")
    return {
        "settings": SETTINGS,
        "sae_k": SAE_K,
        "inputs": inputs,
        "expected": {kind: expected(inputs, kind) for kind in kinds},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(make(), separators=(",", ":")) + "\n", encoding="utf-8")
