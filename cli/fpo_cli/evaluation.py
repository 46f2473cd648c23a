"""What `fpo eval` does: the same measurements of a model and of the one it came from."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo_cli.backend import build_policy
from fpo_cli.measure import Gauge, findings
from fpo_cli.progress import ProgressDisplay
from fpo_cli.session import FROZEN, Session
from fpo_cli.stores import evaluation_store
from fpo_cli.training import announce
from fpo_cli.ui import Ui
from fpo_core.config import AdapterConfig, EvalConfig
from fpo_core.policy import Policy, Sampling
from fpo_core.texts import read_texts
from fpo_core.train import RunData
from fpo_core.verdict import verdict

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Compared:
    """The reference's session, the shape of what was trained, and where its weights come from."""

    reference: Session
    shape: AdapterConfig
    tuned: Session | None
    """The model under test; None where there is nothing to compare with."""


def run_evaluation(config: EvalConfig, ui: Ui) -> dict[str, Any]:
    """Measure, compare and judge; the mapping that --json prints."""
    if config.sae is None and config.objective == "fpo":
        config = dataclasses.replace(config, alpha=0.0)
    compared = _compared(config)
    session = compared.reference
    texts = [] if config.text is None else read_texts(Path(config.text))
    data = session.load_data(config)
    split = data.train if data.valid is None else data.valid
    near = () if config.adapter is None else (Path(config.adapter), Path(config.adapter).parent)
    folder = evaluation_store(session, config.reference, near, config.cache, split)
    weights = _weights(compared)
    policy = _policy(session, compared.shape)
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
    ui.note("measuring the reference" if weights else "measuring the model")
    before, after = None, gauge.measure(policy)
    if weights is not None:
        start = policy.trained()
        policy.set_reference(start)
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
    if config.base is not None:
        reference = Session(dataclasses.replace(config, model=config.base, base=None))
        shape = AdapterConfig(fine_tune_type="full")
        found = Compared(reference, shape, tuned)
    elif config.adapter is not None:
        reference = Session(dataclasses.replace(config, adapter=None))
        found = Compared(reference, tuned.adapter_config(FROZEN), tuned)
    else:
        found = Compared(tuned, FROZEN, None)
    for session in (found.reference, tuned):
        _ = session.backend, session.model
    return found


def _weights(compared: Compared) -> Weights | None:
    """What was trained. A whole model is loaded for it, and let go before the reference is."""
    if compared.tuned is None:
        return None
    if compared.tuned.start_adapter is not None:
        return compared.tuned.start_adapter.weights
    return _policy(compared.tuned, compared.shape).trained()


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
    ("rewards/margins", "reward margin"),
    ("fpo/d_chosen", "D, chosen"),
    ("fpo/d_rejected", "D, rejected"),
    ("entropy", "entropy of samples, nats"),
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
