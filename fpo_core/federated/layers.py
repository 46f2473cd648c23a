"""Which blocks' weights are exchanged: FedPepTAO's layer scores (arXiv 2310.15080).

The paper's own text was not within reach; this follows the released code. There eigenvalues come
from a routine for general matrices, which may turn complex; here from the one for symmetric ones.
There the last block is never scored; here all are.
"""

from collections.abc import Iterable, Sequence

import numpy as np

_RIDGE = 1e-5
"""Added to the eigenvalues, as in the released code: equal samples make some of them 0."""


def layer_score(states: np.ndarray) -> float:
    """Σ_j (log λ_j + 1/λ_j) over the eigenvalues of the samples' cosine matrix, (n, m) -> score.

    A row is one sample's hidden states behind a block, flattened. Large where samples are alike.
    """
    x = np.asarray(states, np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    eigenvalues = np.maximum(np.linalg.eigvalsh(x @ x.T), 0) + _RIDGE
    return float(np.sum(np.log(eigenvalues) + 1 / eigenvalues))


def mean_scores(scores: Sequence[Sequence[float]], weights: Sequence[float]) -> np.ndarray:
    """The clients' scores of each block, (clients, blocks), weighted by n_i / Σn -> (blocks,)."""
    return np.average(np.asarray(scores, np.float64), axis=0, weights=weights)


def chosen_blocks(scores: np.ndarray, share: float) -> list[int]:
    """The blocks of the largest scores, ascending: a share of all, rounded up, ties by number."""
    count = min(len(scores), int(np.ceil(share * len(scores))))
    return sorted(np.argsort(-scores, kind="stable")[:count].tolist())


def random_blocks(blocks: int, share: float, seed: int) -> list[int]:
    """As many blocks, drawn at random: what scores are to be compared with."""
    return chosen_blocks(np.random.default_rng([seed, blocks]).permutation(blocks), share)


def exchanged(names: Iterable[str], blocks: Sequence[int] | None, *, freeze_a: bool) -> list[str]:
    """The canonical names that clients send: of these blocks, or all; never a frozen A.

    What belongs to no block, as a soft prompt, is always sent.
    """
    return sorted(
        name
        for name in names
        if not (freeze_a and name.endswith("lora_A"))
        and (blocks is None or not name[0].isdigit() or int(name.split(".", 1)[0]) in blocks)
    )
