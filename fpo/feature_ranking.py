"""Features that tell two sets of texts apart, as a table and as a file of weights."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fpo.model_setup import FROZEN, ModelSetup
from fpo.reporting.of_features import features_page
from fpo.reporting.page_file import is_page, write_page
from fpo.results import Result, Table
from fpo.workflow import workflow
from fpo_core.config import SaeFeaturesConfig
from fpo_core.errors import SaeError
from fpo_core.evaluation.feature_ranking import Contrast, contrast, pooled_features
from fpo_core.evaluation.texts import read_texts
from fpo_core.events import Sink, note
from fpo_core.io.ownership import check_foreign
from fpo_core.sae.feature_weights import write_weights


@dataclass(frozen=True)
class FeatureRanking(Result):
    """Features by how much more they fire on the positive texts."""

    backend: str
    hook: str
    texts: list[int]
    """How many texts were read, positive and negative."""
    out: str | None
    """The file of feature weights, where one was written."""
    features: list[Contrast]
    report: str | None = None
    """The page, where one was written."""

    def table(self) -> Table:
        """A feature a row."""
        rows = [
            (str(f.index), *(f"{v:.4g}" for v in (f.positive, f.negative, f.difference, f.effect)))
            for f in self.features
        ]
        return Table(("feature", "positive", "negative", "difference", "effect"), rows)

    def to_mapping(self) -> dict[str, Any]:
        """The ranking as JSON values."""
        features = [asdict(f) | {"difference": f.difference} for f in self.features]
        return vars(self) | {"features": features}


@workflow(SaeFeaturesConfig)
def rank_features(config: SaeFeaturesConfig, sink: Sink) -> FeatureRanking:
    """Rank features by how much more they fire on one set of texts than on another.

    The difference is that of mean features. With `out`, the first `top` of them become a file for
    the setting `feature_weights` of `train`, whose D compares just these. Raises SaeError where no
    feature fires more on the positive texts.
    """
    if config.report is not None:
        check_foreign([Path(config.report)], is_page, "report")
    # Texts before the model: a wrong file name should not wait for the weights.
    texts = [read_texts(Path(name)) for name in (config.positive, config.negative)]
    setup = ModelSetup(config)
    assert setup.features is not None, "the settings require an autoencoder"
    tap = setup.features.single
    policy = setup.policy(FROZEN)
    note(sink, f"{setup.backend}, {setup.model.name}, {tap.hook}")
    width, budget = config.max_seq_length, config.tokens_per_batch
    positive, negative = (
        pooled_features(policy, setup.tokenizer, side, budget, width) for side in texts
    )
    features = contrast(positive, negative, config.top, absolute=config.absolute)
    if not features:
        raise SaeError(
            "no feature fires more on the positive texts than on the negative: give texts that "
            "differ in one attribute, or set absolute"
        )
    if config.out is not None:
        about = {"positive": config.positive, "negative": config.negative}
        weights = {feature.index: config.weight for feature in features}
        write_weights(Path(config.out), tap.sae, weights, **about)
    if config.report is not None:
        page = features_page(policy, setup, config, texts, [feature.index for feature in features])
        write_page(Path(config.report), page)
    counts = [len(side) for side in texts]
    return FeatureRanking(setup.backend, str(tap.hook), counts, config.out, features, config.report)
