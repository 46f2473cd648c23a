"""Training a top-k autoencoder with SAELens: what the example's build scripts share.

SAELens is a dependency of those scripts alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from sae_lens import SAE, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file, save_file


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an autoencoder is trained; `samples` are activations, repeats counted."""

    d_sae: int
    k: int
    samples: int
    lr: float = 1e-3
    batch_size: int = 2048
    seed: int = 3
    normalise: bool = False
    """Train on activations of mean norm √d_in, b_dec starting at their mean; the factor is folded
    into the weights that are saved."""
    autocast: bool = False
    """Multiply matrices in bfloat16."""


def train_topk(acts: torch.Tensor, recipe: Recipe, metadata: SAEMetadata, out: Path) -> None:
    """Train on activations (n, d_in) and save in SAELens's format, with `sparsity`, to `out`."""
    torch.manual_seed(recipe.seed)
    d_in = acts.shape[1]
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(d_in=d_in, d_sae=recipe.d_sae, k=recipe.k, metadata=metadata)
    )
    factor = 1.0
    if recipe.normalise:
        factor = d_in**0.5 / acts.float().norm(dim=-1).mean().item()
        sae.b_dec.data = acts.float().mean(0) * factor
    config = SAETrainerConfig(
        total_training_samples=recipe.samples,
        train_batch_size_samples=recipe.batch_size,
        lr=recipe.lr,
        lr_end=recipe.lr / 10,
        lr_decay_steps=recipe.samples // recipe.batch_size // 3,
        dead_feature_window=200,
        feature_sampling_window=500,
        autocast=recipe.autocast,
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(config, sae, _batches(acts, recipe, factor))
    trained = trainer.fit()
    trained.fold_activation_norm_scaling_factor(factor)
    trained.save_inference_model(out)
    save_file({"sparsity": trainer.log_feature_sparsity}, out / "sparsity.safetensors")


def _batches(acts: torch.Tensor, recipe: Recipe, factor: float) -> Iterator[torch.Tensor]:
    """Endless shuffled batches of the activations, times `factor`."""
    generator = torch.Generator().manual_seed(recipe.seed)
    while True:
        for rows in torch.randperm(len(acts), generator=generator).split(recipe.batch_size):
            if len(rows) == recipe.batch_size:
                yield acts[rows].float() * factor


@torch.no_grad()
def report(path: Path, acts: torch.Tensor, what: str = "held-out activations") -> None:
    """Print what the saved autoencoder explains of activations it was not trained on."""
    sae = SAE.load_from_disk(path).float()
    error, active, fired = 0.0, 0.0, torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
    for part in acts.float().split(4096):
        codes = sae.encode(part)
        error += (part - sae.decode(codes)).pow(2).sum().item()
        active += (codes > 0).sum().item()
        fired |= (codes > 0).any(0)
    total = (acts.float() - acts.float().mean(0)).pow(2).sum().item()
    print(f"{what}: {len(acts)} tokens")
    print(f"  fraction of variance unexplained {error / total:.4f}")
    print(f"  L0 {active / len(acts):.2f}")
    print(f"  features that never fire {1 - fired.float().mean().item():.3f}")
    print(f"  mean activation norm {acts.float().norm(dim=-1).mean().item():.2f}")


def shrink(path: Path) -> None:
    """Rewrite the two matrices of a saved autoencoder in float16."""
    weights = load_file(path / "sae_weights.safetensors")
    halved = {k: v.half() if k.startswith("W_") else v for k, v in weights.items()}
    save_file(halved, path / "sae_weights.safetensors")
