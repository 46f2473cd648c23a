"""The same measurements of a model and of the one that it came from."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo.backends import build_policy
from fpo.judge_choice import open_judge
from fpo.judged_samples import JudgedSamples, judge_samples
from fpo.measurements import Measurements, Measurer, findings, measurements_table
from fpo.model_setup import FROZEN, ModelSetup
from fpo.questionnaire import Questionnaire
from fpo.results import Result, Table
from fpo.run_checks import announce, check_positions
from fpo.store_location import evaluation_store
from fpo.workflow import workflow
from fpo_core.adapters.lora import common_shape
from fpo_core.backend.guidance import Guide
from fpo_core.backend.policy import Policy
from fpo_core.backend.reference_weights import reference_weights
from fpo_core.config import AdapterConfig, EvalConfig, ValueConfig
from fpo_core.data.load import Goal
from fpo_core.evaluation.greedy_answers import questions_of
from fpo_core.evaluation.texts import texts_of
from fpo_core.evaluation.verdict import verdict
from fpo_core.events import Sink, note
from fpo_core.pairs.goals import require_template
from fpo_core.sae.load import refuse_doubts
from fpo_core.train.paired_data import RunData

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class EvaluationResult(Result):
    """How a model stands on held-out pairs, beside the one that it is compared with."""

    backend: str
    reference: Path
    """The store of the other model's pass."""
    before: Measurements | None
    """The model that is compared with; None where there is none."""
    after: Measurements
    verdict: list[str]
    """What the measurements say, in sentences."""
    judged: JudgedSamples | None = None
    """What the settings' judge says of the samples."""

    @property
    def metrics(self) -> dict[str, Any]:
        """Measurements of the model, by name; `samples` as those of `TrainingRun.metrics`."""
        return self.after.with_samples(self.before)

    def table(self) -> Table:
        """Both models' measurements, and the verdict."""
        judged = () if self.judged is None else (self.judged.line(),)
        return measurements_table(self.before, self.after, (*self.verdict, *judged))

    def to_mapping(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return super().to_mapping() | {"after": self.metrics}


@dataclass(frozen=True)
class _Compared:
    """Two models as weights of one shape, which a policy can swap."""

    reference: ModelSetup
    """The model that is compared with; the only one, where nothing is compared."""
    shape: AdapterConfig
    at_reference: Weights
    """The reference's weights, less those at the start of an adapter."""
    tuned: Callable[[], Weights] | None
    """Loads the same of the model under test; None where there is nothing to compare with."""
    guide: Guide | None = None
    """What weighs the tokens of its samples."""


@workflow(EvalConfig)
def evaluate(config: EvalConfig, sink: Sink) -> EvaluationResult:
    """Measure a model on held-out pairs, texts and its own samples.

    With `adapter`, the adapted model is compared with `model` under it, or with that under
    `base_adapter`; a whole `model` with `base`. Alone, only the model's own numbers are taken. With
    `value`, its samples are weighed by values and those of the other are not; pairs, texts and
    questions are measured without values.
    """
    if config.sae is None and config.needs_features:
        config = dataclasses.replace(config, alpha=0.0)
    compared = _compared(config)
    setup = compared.reference
    if config.strict:
        refuse_doubts(setup.features)
    texts, questions = texts_of(config.text), questions_of(config.prompts)
    judge = None if config.judge is None else open_judge(config, config, sink, config.cache)
    data = setup.load_data(config, _goal(config))
    split = data.train if data.valid is None else data.valid
    check_positions(setup.model, [split], config, sink)
    near = () if config.adapter is None else (Path(config.adapter), Path(config.adapter).parent)
    folder = evaluation_store(setup, config.reference, near, config.cache, split)
    setup.settle_dtype(sink, folder)
    note(sink, f"loading {setup.model.name}")
    # A whole model is loaded for its weights, and let go before the reference is.
    weights = None if compared.tuned is None else compared.tuned()
    policy = _policy(setup, compared.shape)
    start = reference_weights(policy)
    policy.load_trained(start | compared.at_reference)
    if weights is not None or config.needs_kl:
        policy.set_reference(policy.trained())
    announce(sink, setup, data.report)
    for adapter in (config.adapter, *(config.value or ())):
        setup.warn_of_base(adapter, sink)
    store = setup.reference(folder, [split], policy, config, sink)
    measurer = Measurer(
        data=RunData.of(data, store, setup.features),
        split=split,
        objective=config,
        pairs=config.val_pairs,
        tokens_per_batch=config.tokens_per_batch,
        tokenizer=setup.tokenizer,
        texts=texts,
        text_width=config.max_seq_length,
        questionnaire=Questionnaire.of(config, questions, split, setup.tokenizer, setup.stop),
        samples=config.samples,
        sink=sink,
        sampling=setup.sampling(config),
    )
    note(sink, "measuring the model" if weights is None else "measuring the reference")
    before, after = None, measurer.measure(policy)
    if weights is not None:
        policy.load_trained(start | weights)
        note(sink, "measuring the model")
        sampling = dataclasses.replace(measurer.sampling, guide=compared.guide)
        weighed = dataclasses.replace(measurer, sampling=sampling)
        before, after = after, weighed.measure(policy, kl=True)
    # Under values alone pairs are scored by one model twice, which says nothing of it.
    models = (config.adapter, config.base_adapter, config.base)
    other = before if any(name is not None for name in models) else None
    said = verdict(findings(other, after, config, held_out=data.valid is not None))
    judged = None
    if judge is not None:
        earlier = None if before is None else before.completions
        prompts = measurer.prompt_texts()
        judged = judge_samples(judge, prompts, after.completions, earlier, config.seed)
    return EvaluationResult(setup.backend, folder, before, after, said, judged)


def _goal(config: EvalConfig) -> Goal | None:
    if config.goal is None:
        return None
    return Goal(require_template(config.adapter, config.model), config.goal)


def _compared(config: EvalConfig) -> _Compared:
    """Find both models; whatever is wrong with their folders shows here."""
    tuned = ModelSetup(config)
    _ = tuned.backend, tuned.model
    if config.base is not None:
        reference = ModelSetup(dataclasses.replace(config, model=config.base, base=None))
        _ = reference.model
        shape = AdapterConfig(fine_tune_type="full")
        return _Compared(reference, shape, {}, lambda: _policy(tuned, shape).trained())
    bare = {"adapter": config.base_adapter, "base_adapter": None}
    unweighed = {name: getattr(ValueConfig, name) for name in ValueConfig.names()}
    reference = ModelSetup(dataclasses.replace(config, **bare, **unweighed))
    sides = [reference.start_adapter, tuned.start_adapter]
    adapters = [adapter for adapter in sides if adapter is not None]
    adapters += [value.adapter for value, _ in tuned.values]
    if not adapters:
        return _Compared(reference, FROZEN, {}, None)
    shape, fitted = common_shape(adapters)
    guide = tuned.guide_in(fitted)
    before, after = ({} if side is None else fitted.pop(0) for side in sides)
    return _Compared(reference, shape, before, lambda: after, guide)


def _policy(setup: ModelSetup, shape: AdapterConfig) -> Policy:
    return build_policy(
        setup.backend, setup.model.path, setup.computing, shape, setup.features, step=setup.step
    )
