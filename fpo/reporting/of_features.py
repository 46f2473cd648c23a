"""The page of an autoencoder by itself: features that tell two sets of texts apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fpo.model_setup import ModelSetup
from fpo.reporting.page import features_alone
from fpo.reporting.reread import inspected_with_lens
from fpo_core.backend.policy import Policy
from fpo_core.config import ReportedConfig, SaeFeaturesConfig
from fpo_core.data.batching import scoring_batches
from fpo_core.evaluation.feature_movement import FeatureMovement
from fpo_core.evaluation.inspection import Inspection, inspect_features
from fpo_core.evaluation.model_card import shown
from fpo_core.evaluation.texts import sequences

SIDES = ("positive", "negative")


def features_page(
    policy: Policy,
    setup: ModelSetup,
    config: SaeFeaturesConfig,
    texts: Sequence[Sequence[str]],
    features: Sequence[int],
) -> str:
    """The page of some features on positive and negative texts, as HTML."""
    assert setup.features is not None, "the settings require an autoencoder"
    movement = FeatureMovement(setup.features.widths)
    width, budget = config.max_seq_length, config.tokens_per_batch
    ids: dict[int, np.ndarray] = {}
    for side, of_side in enumerate(texts):
        for number, text in enumerate(of_side):
            tokens = setup.tokenizer(text).input_ids[:width]
            if len(tokens) > 1:  # the first token of a text is not scored
                ids[2 * number + side] = np.array(tokens, np.int64)
    places = np.array(list(ids), np.int64)
    lengths = np.array([len(tokens) for tokens in ids.values()], np.int64)
    # Batches are planned for pairs, two sequences to a row; a text is one.
    for part in scoring_batches(lengths, 2 * budget):
        rows = places[part]
        batch = sequences([ids[int(row)].tolist() for row in rows], [1] * len(rows))
        scores = policy.token_scores(batch)
        assert scores.pooled is not None
        assert scores.peaks is not None
        movement.add(scores.pooled, scores.pooled, scores.peaks, rows % 2, rows)

    def completion(place: int) -> tuple[np.ndarray, np.ndarray]:
        return ids[place][:1], ids[place][1:]

    inspected = inspect_features(policy, movement, features, completion, budget)
    counts = ReportedConfig(shown_features=max(1, len(inspected)))
    tokenizer = setup.tokenizer
    record = inspected_with_lens(
        policy, Inspection([], inspected), tokenizer, setup.features, counts, SIDES
    )
    names = [
        f"{side}: {shown(name)} ({len(of_side)} texts)"
        for side, name, of_side in zip(
            SIDES, (config.positive, config.negative), texts, strict=True
        )
    ]
    title = f"Features of {Path((config.sae or ('',))[0]).name}"
    return features_alone(record | {"title": title, "about": [setup.model.name, *names]})
