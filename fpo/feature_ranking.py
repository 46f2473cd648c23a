"""What `fpo sae features` does: features that tell texts apart, as a table and as a file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fpo.session import FROZEN, Session
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeFeaturesConfig
from fpo_core.errors import SaeError
from fpo_core.evaluation.feature_ranking import Contrast, contrast, pooled_features
from fpo_core.evaluation.texts import read_texts
from fpo_core.sae.feature_weights import write_weights


def rank_features(config: SaeFeaturesConfig, ui: Ui) -> dict[str, Any]:
    """Rank, show and write; the mapping that --json prints."""
    texts = [read_texts(Path(name)) for name in (config.positive, config.negative)]
    session = Session(config)
    assert session.features is not None, "the settings require an autoencoder"
    tap = session.features.single
    policy = session.policy(FROZEN)
    ui.note(f"{session.backend}, {session.model.name}, {tap.hook}")
    width, budget = config.max_seq_length, config.tokens_per_batch
    positive, negative = (
        pooled_features(policy, session.tokenizer, side, budget, width) for side in texts
    )
    found = contrast(positive, negative, config.top, absolute=config.absolute)
    if not found:
        raise SaeError(
            "no feature fires more on the positive texts than on the negative: give texts that "
            "differ in one attribute, or --absolute"
        )
    _show(ui, found)
    if config.out is not None:
        about = {"positive": config.positive, "negative": config.negative}
        weights = {feature.index: config.weight for feature in found}
        write_weights(Path(config.out), tap.sae, weights, **about)
        ui.say(f"{config.out}: {len(found)} features of weight {config.weight:g}")
    return {
        "backend": session.backend,
        "hook": str(tap.hook),
        "texts": [len(side) for side in texts],
        "out": config.out,
        "features": [asdict(feature) | {"difference": feature.difference} for feature in found],
    }


def _show(ui: Ui, found: list[Contrast]) -> None:
    from rich.table import Table

    names = ("feature", "positive", "negative", "difference", "effect")
    table = Table(*names, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.justify = "right"
    for feature in found:
        values = (feature.positive, feature.negative, feature.difference, feature.effect)
        table.add_row(str(feature.index), *(f"{value:.4g}" for value in values))
    ui.say(table)
