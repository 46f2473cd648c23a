"""What `fpo eval` does: the same measurements of a model and of the one it came from."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo.backends import build_policy
from fpo.measure import Gauge, findings
from fpo.session import FROZEN, Session
from fpo.stores import evaluation_store
from fpo.training import announce
from fpo_cli.console.progress import ProgressDisplay
from fpo_cli.console.ui import Ui
from fpo_core.adapters.lora import common_shape
from fpo_core.backend.policy import Policy, Sampling
from fpo_core.config import AdapterConfig, EvalConfig
from fpo_core.evaluation.texts import read_texts
from fpo_core.evaluation.verdict import verdict
from fpo_core.loss.objectives import needs_kl
from fpo_core.train import RunData

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Compared:
    """Two models as weights of one shape, which a policy can swap."""

    reference: Session
    """The model that is compared with; the only one, where nothing is compared."""
    shape: AdapterConfig
    at_reference: Weights
    """The reference's weights, less those at the start of an adapter."""
    tuned: Callable[[], Weights] | None
    """Loads the same of the model under test; None where there is nothing to compare with."""


def run_evaluation(config: EvalConfig, ui: Ui) -> dict[str, Any]:
    """Measure, compare and judge; the mapping that --json prints."""
    if config.sae is None and config.needs_features:
        config = dataclasses.replace(config, alpha=0.0)
    compared = _compared(config)
    session = compared.reference
    texts = [] if config.text is None else read_texts(Path(config.text))
    data = session.load_data(config)
    split = data.train if data.valid is None else data.valid
    near = () if config.adapter is None else (Path(config.adapter), Path(config.adapter).parent)
    folder = evaluation_store(session, config.reference, near, config.cache, split)
    # A whole model is loaded for its weights, and let go before the reference is.
    weights = None if compared.tuned is None else compared.tuned()
    policy = _policy(session, compared.shape)
    start = policy.trained()
    policy.load_trained(start | compared.at_reference)
    if weights is not None or needs_kl(config):
        policy.set_reference(policy.trained())
    announce(ui, session, data.report)
    with ProgressDisplay(ui) as display:
        store = session.reference(folder, [split], policy, config, display)
    gauge = Gauge(
        data=RunData.of(data, store, session.features),
        split=split,
        objective=config,
        pairs=config.val_pairs,
        tokens_per_batch=config.tokens_per_batch,
        tokenizer=session.tokenizer,
        texts=texts,
        text_width=config.max_seq_length,
        samples=config.samples,
        sampling=Sampling(
            config.max_tokens, config.temperature, config.top_p, config.seed, session.stop
        ),
    )
    ui.note("measuring the model" if weights is None else "measuring the reference")
    before, after = None, gauge.measure(policy)
    if weights is not None:
        policy.load_trained(start | weights)
        ui.note("measuring the model")
        before, after = after, gauge.measure(policy, kl=True)
    judged = verdict(findings(before, after, config, held_out=data.valid is not None))
    _show(ui, before and before.to_mapping(), after.to_mapping())
    for line in judged:
        ui.say(line)
    return {
        "backend": session.backend,
        "reference": str(folder),
        "before": before and before.to_mapping(),
        "after": after.to_mapping(),
        "verdict": judged,
    }


def _compared(config: EvalConfig) -> Compared:
    """Find both models; whatever is wrong with their folders shows here."""
    tuned = Session(config)
    _ = tuned.backend, tuned.model
    if config.base is not None:
        reference = Session(dataclasses.replace(config, model=config.base, base=None))
        _ = reference.model
        shape = AdapterConfig(fine_tune_type="full")
        return Compared(reference, shape, {}, lambda: _policy(tuned, shape).trained())
    reference = Session(dataclasses.replace(config, adapter=config.base_adapter, base_adapter=None))
    sides = [reference.start_adapter, tuned.start_adapter]
    adapters = [adapter for adapter in sides if adapter is not None]
    if not adapters:
        return Compared(reference, FROZEN, {}, None)
    shape, fitted = common_shape(adapters)
    before, after = ({} if side is None else fitted.pop(0) for side in sides)
    return Compared(reference, shape, before, lambda: after)


def _policy(session: Session, shape: AdapterConfig) -> Policy:
    return build_policy(
        session.backend,
        session.model.path,
        session.config,
        shape,
        session.features,
        step=session.step,
    )


_ROWS = (
    ("fpo/kl_chosen", "sequential KL, chosen"),
    ("fpo/kl_rejected", "sequential KL, rejected"),
    ("fpo/kl_margin", "sequential KL, rejected − chosen"),
    ("rewards/margins", "reward margin"),
    ("fpo/d_chosen", "D, chosen"),
    ("fpo/d_rejected", "D, rejected"),
    ("fpo/d_margin", "D, rejected − chosen"),
    ("entropy", "entropy of samples, nats"),
    ("distinct_1", "distinct-1 of samples, in tokens"),
    ("distinct_2", "distinct-2"),
    ("sample_length", "length of samples, tokens"),
    ("perplexity", "perplexity of texts"),
)


def _show(ui: Ui, before: dict[str, Any] | None, after: dict[str, Any]) -> None:
    ui.say(f"{after['pairs']} pairs")
    for name, label in (("raw_accuracy", "raw accuracy"), ("reward_accuracy", "reward accuracy")):
        if name == "raw_accuracy" or before is not None:
            share = after[name]
            interval = f"[{share['low']:.3f}, {share['high']:.3f}]"
            ui.say(f"  {label}: {share['value']:.3f} {interval}")
    for name, label in _ROWS:
        if after.get(name) is not None:
            was = "" if before is None or before.get(name) is None else f"{before[name]:.4g} → "
            ui.say(f"  {label}: {was}{after[name]:.4g}")
