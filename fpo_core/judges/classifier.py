"""A text classifier fitted on labelled answers: hashed n-grams, TF-IDF, logistic regression."""

import dataclasses
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpo_core.errors import DataError
from fpo_core.io.reader import open_safetensors
from fpo_core.io.regular import read_lines
from fpo_core.io.writer import write_arrays
from fpo_core.judges.judge import NO_VERDICT, ScoringJudge, Texts, logistic
from fpo_core.judges.logistic import sigmoid
from fpo_core.judges.ngrams import BITS, counts_of, rows_of

_RIDGE = 3e-5
"""Of the mean loss, as scikit-learn's C = 10 on three thousand answers."""
_STEPS = 400
FOLDS = 5


@dataclass(frozen=True)
class Labelled:
    """Answers with how far each is what is wanted, in [0, 1]."""

    texts: list[str]
    labels: np.ndarray
    groups: list[str]
    """What of each is held out together: its prompt, or itself."""


def read_labelled(path: Path) -> Labelled:
    """Rows {"completion" or "text", "label", perhaps "prompt"} of a JSONL file.

    Raises DataError for a row that lacks them, or where all labels are alike.
    """
    texts, labels, groups = [], [], []
    for line, where in read_lines(path, DataError):
        try:
            row = json.loads(line)
            text = row["completion"] if "completion" in row else row["text"]
            label = float(row["label"])
        except (ValueError, KeyError, TypeError):
            label, text, row = math.nan, None, {}
        if not isinstance(text, str) or not 0 <= label <= 1:
            raise DataError(
                f"{where} is no labelled answer, expected an object with completion "
                "(or text) and a label from 0 to 1"
            )
        texts.append(text)
        labels.append(label)
        groups.append(str(row.get("prompt", text)))
    if len(set(labels)) < 2:
        raise DataError(f"{path} has labels of one value alone, expected answers of both kinds")
    return Labelled(texts, np.array(labels), groups)


class Classifier(ScoringJudge):
    """Scores the probability that an answer is of the wanted kind; the prompt is not read."""

    def __init__(self, weights: np.ndarray, idf: np.ndarray, bias: float, name: str) -> None:
        """`weights` and `idf` (2^18,) of hashed n-grams: words and pairs of words, and two to five
        characters within a word.
        """
        self._weights, self._idf, self._bias, self.name = weights, idf, bias, name

    @classmethod
    def fit(
        cls, texts: Sequence[str], labels: np.ndarray, name: str = "classifier"
    ) -> "Classifier":
        """Minimise the ridge-penalised mean logistic loss by Nesterov's method."""
        counted = [counts_of(text) for text in texts]
        columns = np.fromiter((column for row in counted for column in row), np.int64)
        idf = np.log((1 + len(texts)) / (1 + np.bincount(columns, None, 1 << BITS))) + 1
        rows = rows_of(counted, idf)
        seen, places = np.unique(rows.columns, return_inverse=True)
        x = dataclasses.replace(rows, columns=places)
        # Rows have norm 1, so the loss has curvature of at most 1/4, with the bias 1/2.
        w = previous = np.zeros(len(seen))
        bias = before = 0.0
        for step in range(_STEPS):
            momentum = step / (step + 3)
            ahead, bias_ahead = w + momentum * (w - previous), bias + momentum * (bias - before)
            residual = (sigmoid(x.times(ahead) + bias_ahead) - labels) / len(texts)
            previous, before = w, bias
            w = ahead - 2 * (x.transposed_times(residual, len(seen)) + _RIDGE * ahead)
            bias = bias_ahead - 2 * float(residual.sum())
        weights = np.zeros(1 << BITS)
        weights[seen] = w
        return cls(weights, idf, bias, name)

    def score(self, prompts: Texts, completions: Texts) -> list[float]:
        """P(wanted) of each completion; NaN of an empty one."""
        del prompts
        x = rows_of([counts_of(text) for text in completions], self._idf)
        values = sigmoid(x.times(self._weights) + self._bias).tolist()
        return [v if c.strip() else NO_VERDICT for v, c in zip(values, completions, strict=True)]

    def preference(self, left: float, right: float) -> float:
        """The odds of one against the other: σ(logit left − logit right)."""
        return logistic(_logit(left) - _logit(right))

    def save(self, path: Path) -> None:
        """Write the classifier as safetensors."""
        arrays = {"weights": self._weights, "idf": self._idf, "bias": np.array([self._bias])}
        write_arrays(path, {name: a.astype(np.float32) for name, a in arrays.items()}, "fpo-judge")

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read what `save` wrote; DataError for any other file."""
        file = open_safetensors(path, DataError)
        if {*file.entries} != {"weights", "idf", "bias"}:
            raise DataError(f"{path} is no saved classifier: give the file that fitting wrote")
        weights, idf, bias = (file.rows(name) for name in ("weights", "idf", "bias"))
        if weights.shape != (1 << BITS,) or idf.shape != weights.shape or bias.shape != (1,):
            raise DataError(f"{path} has weights of another version: fit the classifier again")
        return cls(weights.astype(float), idf.astype(float), float(bias[0]), path.name)


def held_out_auc(labelled: Labelled) -> float:
    """Area under the ROC curve of answers whose prompts were held out, in five folds."""
    folds = np.array([zlib.crc32(group.encode()) % FOLDS for group in labelled.groups])
    scores = np.full(len(folds), np.nan)
    for fold in range(FOLDS):
        rows, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if len(rows) and len(set(labelled.labels[rest])) > 1:
            fitted = Classifier.fit([labelled.texts[i] for i in rest], labelled.labels[rest])
            scores[rows] = fitted.score([], [labelled.texts[i] for i in rows])
    scored = ~np.isnan(scores)
    return auc(scores[scored], labelled.labels[scored] > 0.5)


def auc(scores: np.ndarray, wanted: np.ndarray) -> float:
    """How often a wanted one scores above another, ties counting half; NaN without both kinds."""
    if wanted.all() or not wanted.any():
        return math.nan
    ordered = np.sort(scores[~wanted])
    below = np.searchsorted(ordered, scores[wanted], "left")
    up_to = np.searchsorted(ordered, scores[wanted], "right")
    return float((below + up_to).mean() / 2 / len(ordered))


def _logit(p: float) -> float:
    p = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p))
