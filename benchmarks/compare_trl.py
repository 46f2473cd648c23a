"""The objectives that TRL has too, computed by both on the same batch, model and reference.

TRL builds the batch (its tokenisation of the quickstart's pairs) and computes its loss through
`compute_loss` of its DPO trainer, or of its CPO trainer for SimPO. Of ORPO it computes the odds
ratio and the log-probabilities: its supervised term takes the prompt in, so ours stands in for it.
Our torch policy gets the same token ids and masks. Losses and gradients of fully trained weights
must agree within 1e-5, relative. Exit status 1 where they do not.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from benchmarks.record import ROOT, write_result
from fpo_core.config import AdapterConfig, ModelConfig, ObjectiveConfig, OptimiserConfig
from fpo_core.data.batches import Batch
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.metrics import pair_losses
from fpo_torch.policy import TorchPolicy

WORLD = ROOT / "fpo" / "world" / "data"
BOUND = 1e-5


def random_llama(vocab: int) -> LlamaForCausalLM:
    """A small Llama whose weights are large enough for peaked predictions."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=3,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def shaken(model: LlamaForCausalLM, scale: float) -> LlamaForCausalLM:
    """The model with noise on every weight: a policy that differs from its reference."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(scale * torch.randn_like(weight))
    return model


@dataclass(frozen=True)
class Case:
    """One of our objectives, and TRL's name for it with TRL's names of its settings."""

    ours: ObjectiveConfig
    loss_type: str
    settings: dict[str, float]

    @classmethod
    def of(cls, objective: Any, loss_type: str, **ours: Any) -> "Case":
        """A case whose settings have the same names in TRL, but for `TRL_NAMES`."""
        theirs = {TRL_NAMES.get(k, k): value for k, value in ours.items() if k != "link"}
        return cls(ObjectiveConfig(objective=objective, **ours), loss_type, theirs)


TRL_NAMES = {"gamma": "simpo_gamma", "odds_lambda": "beta"}
CASES = [
    *(Case.of("dpo-norm", "sigmoid_norm", beta=beta) for beta in (0.1, 2.0, 10.0)),
    Case.of("fpo", "sigmoid_norm", beta=2.0, alpha=0.0),
    *(Case.of("dpo", "sigmoid", beta=beta) for beta in (0.1, 1.0)),
    Case.of("discopop", "discopop", beta=0.1, discopop_tau=0.05),
    Case.of("discopop", "discopop", beta=0.5, discopop_tau=1.0),
    Case.of("dpo", "discopop", link="lrml", beta=0.1, discopop_tau=0.05),
    *(Case.of("dpo", "hinge", link="hinge", beta=beta) for beta in (0.1, 1.0)),
    *(Case.of("orpo", "orpo", odds_lambda=weight) for weight in (0.1, 1.0)),
    Case.of("simpo", "simpo", beta=2.0, gamma=0.5),
    Case.of("simpo", "simpo", beta=10.0, gamma=3.0, label_smoothing=0.1),
]


def trl_trainer(case: Case, folder: Path, policy: Path, pairs: int, scratch: Path) -> Any:
    """TRL's CPO and ORPO trainers for SimPO and ORPO, without reference; its DPO trainer else."""
    lines = (WORLD / "pairs" / "valid.jsonl").read_text(encoding="utf-8").splitlines()
    settings = {key: value for key, value in case.settings.items() if key != "alpha"}
    options: dict[str, Any] = {
        "output_dir": str(scratch / "trl"),
        "loss_type": case.loss_type,
        "per_device_train_batch_size": pairs,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
    }
    parts: dict[str, Any] = {
        "model": LlamaForCausalLM.from_pretrained(policy),
        "train_dataset": Dataset.from_list([json.loads(line) for line in lines[:pairs]]),
        "processing_class": AutoTokenizer.from_pretrained(WORLD / "model"),
    }
    if case.loss_type == "simpo":
        return CPOTrainer(args=CPOConfig(cpo_alpha=0.0, **options, **settings), **parts)
    if case.loss_type == "orpo":
        options.pop("loss_type")
        return ORPOTrainer(args=ORPOConfig(**options, **settings), **parts)
    reference = LlamaForCausalLM.from_pretrained(folder)
    arguments = DPOConfig(max_length=None, **options, **settings)
    return DPOTrainer(args=arguments, ref_model=reference, **parts)


def run_trl(trainer: Any) -> tuple[float, dict[str, np.ndarray], Batch]:
    """TRL's loss, its gradient by name, and the batch that it made."""
    inputs = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    if isinstance(trainer, ORPOTrainer):
        chosen, rejected = trainer.concatenated_forward(trainer.model, inputs)[:2]
        loss = -chosen.mean() - trainer.odds_ratio_loss(chosen, rejected)[0].mean()
    else:
        loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    gradient = {n: w.grad.numpy() for n, w in trainer.model.named_parameters()}
    if isinstance(trainer, CPOTrainer | ORPOTrainer):
        padding = getattr(trainer, "pad_token_id", 0)
        joined = trainer.concatenated_inputs(inputs, padding_value=padding)
        inputs = {
            "input_ids": joined["concatenated_input_ids"],
            "attention_mask": joined["concatenated_attention_mask"],
            "completion_mask": (joined["concatenated_labels"] != -100).long(),
        }
    return float(loss.detach()), gradient, our_batch(inputs)


def our_batch(inputs: dict[str, torch.Tensor]) -> Batch:
    """TRL's padded tensors as a `Batch`: prompts end where its completion mask begins."""
    completion = inputs["completion_mask"].numpy()
    batch = Batch(
        tokens=inputs["input_ids"].numpy().astype(np.int32),
        prompt_lengths=completion.argmax(1).astype(np.int32),
        lengths=inputs["attention_mask"].numpy().sum(1).astype(np.int32),
        rows=np.arange(len(completion) // 2),
    )
    if not (batch.completion_mask() == completion).all():
        raise SystemExit("TRL's completion mask is not one run of ones: nothing to compare")
    return batch


def run_ours(
    folder: Path, policy: Path, objective: ObjectiveConfig, batch: Batch
) -> tuple[float, dict[str, np.ndarray]]:
    """Our loss and gradient g, from Adam's first moment, which is 0.1·g after one step."""
    settings = ModelConfig(model=str(folder), device="cpu", dtype="float32")
    ours = TorchPolicy(folder, settings, AdapterConfig(fine_tune_type="full"))
    reference = ReferenceBatch(ours.score(batch).logps)
    ours.load_trained(
        {n: w.numpy() for n, w in LlamaForCausalLM.from_pretrained(policy).state_dict().items()}
    )
    ours.prepare_training(OptimiserConfig())
    scores = ours.accumulate(batch, reference, objective, 1 / batch.pairs)
    ours.apply_gradients(0.0, 1e9)
    state = ours.optimizer_state()
    gradient = {n.removesuffix(".m"): g / 0.1 for n, g in state.items() if n.endswith(".m")}
    return float(pair_losses(scores, np.asarray(reference.logps), objective).mean()), gradient


def relative(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """‖ours − theirs‖ / ‖theirs‖ over all weights."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    square = sum(((ours[n] - theirs[n]) ** 2).sum() for n in theirs)
    return float(np.sqrt(square / sum((g**2).sum() for g in theirs.values())))


def compare(case: Case, pairs: int) -> dict[str, Any]:
    """One comparison in a scratch folder."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder, policy = scratch / "base", scratch / "policy"
        model = random_llama(json.loads((WORLD / "model/config.json").read_text())["vocab_size"])
        model.save_pretrained(folder)
        shaken(model, 0.02).save_pretrained(policy)
        trl_loss, trl_gradient, batch = run_trl(trl_trainer(case, folder, policy, pairs, scratch))
        loss, gradient = run_ours(folder, policy, case.ours, batch)
    return {
        "objective": case.ours.objective,
        "link": case.ours.link_name,
        "trl": case.loss_type,
        "settings": case.settings,
        "pairs": batch.pairs,
        "completion_lengths": batch.completion_lengths().tolist(),
        "trl_loss": trl_loss,
        "fpo_loss": loss,
        "loss_difference": abs(loss / trl_loss - 1),
        "gradient_difference": relative(gradient, trl_gradient),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    pairs = parser.parse_args().pairs
    runs = [compare(case, pairs) for case in CASES]
    for run in runs:
        print({name: value for name, value in run.items() if name != "completion_lengths"})
    passed = all(max(r["loss_difference"], r["gradient_difference"]) < BOUND for r in runs)
    write_result("compare_trl", {"bound": BOUND, "passed": passed, "runs": runs})
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
