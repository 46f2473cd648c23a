"""Makes the golden autoencoders beside it with sae-lens 6.54.12, and what it encodes with them.

Run it with a Python that has sae-lens; CI reads the files alone. Each case is a folder with the
checkpoint as SAELens saves it and golden.npz: inputs `x` (float32), `features` of SAELens's own
encoder run in float64 on upcast weights, and their `reconstruction` unless it is a transcoder.
"""

import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from sae_lens import SAE
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.activation_scaler import ActivationScaler
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file

HERE = Path(__file__).parent
D_IN, D_SAE, TOKENS = 8, 32, 12
META = {"model_name": "tiny-model", "hook_name": "blocks.2.hook_resid_post"}
EXTRA = {"topk": {"k": 5}, "abstopk": {"k": 5}}


def activations(seed: int, count: int = TOKENS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, D_IN, generator=generator) @ basis + 0.5


def save_golden(folder: Path, x: torch.Tensor, encode, decode) -> None:
    with torch.no_grad():
        arrays = {"x": x.numpy(), "features": encode(x.double())}
        if "transcoder" not in folder.name:
            arrays["reconstruction"] = decode(arrays["features"]).numpy()
    np.savez_compressed(folder / "golden.npz", **arrays)


def clean(name: str) -> Path:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def randomised(sae: SAE, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sae.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.4
        parameter.data = (noise.abs() if name == "threshold" else noise).to(parameter.dtype)


def inference_case(architecture: str, name: str, seed: int, **settings) -> None:
    kind, config = get_sae_class(architecture)
    metadata = SAEMetadata(**META | settings.pop("metadata", {}))
    cfg = config(
        d_in=D_IN, d_sae=D_SAE, metadata=metadata, **EXTRA.get(architecture, {}), **settings
    )
    sae = kind(cfg)
    randomised(sae, seed)
    folder = clean(name)
    sae.save_model(folder)
    wide = SAE.load_from_disk(folder, dtype="float64")
    wide.turn_off_forward_pass_hook_z_reshaping()
    save_golden(folder, activations(seed), wide.encode, wide.decode)


def grid() -> None:
    seed = 0
    for architecture in ("standard", "gated", "jumprelu", "topk", "abstopk"):
        for norm in ("none", "layer_norm", "constant_norm_rescale"):
            for subtract in (True, False):
                seed += 1
                name = f"v6-{architecture}-{norm}-{'b' if subtract else 'nob'}"
                inference_case(
                    architecture,
                    name,
                    seed,
                    normalize_activations=norm,
                    apply_b_dec_to_input=subtract,
                )
        for dtype in ("bfloat16", "float16"):
            seed += 1
            inference_case(architecture, f"v6-{architecture}-{dtype}", seed, dtype=dtype)
    for architecture in ("topk", "abstopk"):
        seed += 1
        inference_case(
            architecture, f"v6-{architecture}-rescaled", seed, rescale_acts_by_decoder_norm=True
        )
    inference_case(
        "standard",
        "v6-standard-hook_z",
        90,
        reshape_activations="hook_z",
        metadata={"hook_name": "blocks.1.attn.hook_z"},
    )
    for number, architecture in enumerate(("transcoder", "skip_transcoder", "jumprelu_transcoder")):
        inference_case(
            architecture,
            f"v6-{architecture}",
            91 + number,
            d_out=6,
            apply_b_dec_to_input=False,
            metadata={"hook_name": "blocks.1.mlp.hook_in"},
        )


def trained(architecture: str, norm: str, **settings):
    """A training autoencoder after 40 steps, and its trainer."""
    kind, config = get_sae_training_class(architecture)
    cfg = config(
        d_in=D_IN,
        d_sae=D_SAE,
        normalize_activations=norm,
        metadata=SAEMetadata(**META, exclude_special_tokens=True),
        **settings,
    )
    torch.manual_seed(3)
    sae = kind(cfg)
    data = (activations(1000 + step, 64) for step in range(10**6))
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=64 * 40,
            train_batch_size_samples=64,
            lr=5e-3,
            lr_end=5e-4,
            device="cpu",
            logger=LoggingConfig(log_to_wandb=False),
            n_batches_for_norm_estimate=10,
        ),
        sae,
        data,
    )
    return sae, trainer


TRAINING = {
    "standard": {"l1_coefficient": 0.05},
    "gated": {"l1_coefficient": 0.05},
    "jumprelu": {"l0_coefficient": 0.05, "jumprelu_init_threshold": 0.1},
    "topk": {"k": 5},
    "abstopk": {"k": 5},
    "batchtopk": {"k": 5.0, "topk_threshold_lr": 0.2},
    "matryoshka_batchtopk": {
        "k": 5.0,
        "topk_threshold_lr": 0.2,
        "matryoshka_widths": [8, 16, 32],
    },
}


def final_saves() -> None:
    for architecture, settings in TRAINING.items():
        for norm in ("none", "expected_average_only_in", "covariance_whitening", "layer_norm"):
            if norm == "layer_norm" and architecture in ("abstopk", "matryoshka_batchtopk"):
                continue
            sae, trainer = trained(architecture, norm, **settings)
            trainer.fit()
            folder = clean(f"final-{architecture}-{norm}")
            sae.save_inference_model(folder)
            wide = SAE.load_from_disk(folder, dtype="float64")
            save_golden(folder, activations(7), wide.encode, wide.decode)


def raw_checkpoints() -> None:
    for architecture, settings in TRAINING.items():
        for norm in ("none", "expected_average_only_in", "covariance_whitening"):
            sae, trainer = trained(architecture, norm, **settings)
            fold_scale = trainer.sae.fold_activation_norm_scaling_factor
            fold_white = trainer.sae.fold_activation_whitening
            scaler = ActivationScaler()
            # fit() folds at its end; a checkpoint on the way is unfolded, so stop it from folding.
            sae.fold_activation_norm_scaling_factor = lambda s, kept=scaler: setattr(
                kept, "scaling_factor", s
            )
            sae.fold_activation_whitening = lambda kept=scaler, source=trainer, **_: setattr(
                kept, "whitening", source.activation_scaler.whitening
            )
            trainer.fit()
            sae.fold_activation_norm_scaling_factor = fold_scale
            sae.fold_activation_whitening = fold_white
            folder = clean(f"raw-{architecture}-{norm}")
            sae.save_model(folder)
            scaler.save(str(folder / "activation_scaler.json"))
            save_golden(folder, activations(7), raw_encoder(sae, scaler), raw_decoder(sae, scaler))


def raw_encoder(sae, scaler: ActivationScaler):
    """The training encoder on scaled inputs; batch top-k is replaced by its running threshold."""

    def encode(x: torch.Tensor) -> torch.Tensor:
        sae.double()
        sae.dtype = torch.float64
        x = x * scaler.scaling_factor if scaler.scaling_factor is not None else x
        if scaler.whitening is not None:
            x = (x - scaler.whitening.mean.double()) @ scaler.whitening.matrix.double()
        if "batchtopk" not in sae.cfg.architecture():
            return sae.encode(x)
        hidden = sae.process_sae_in(x) @ sae.W_enc + sae.b_enc
        if sae.cfg.rescale_acts_by_decoder_norm:
            hidden = hidden * sae.W_dec.norm(dim=-1)
        return hidden.relu() * (hidden > sae.topk_threshold)

    return encode


def raw_decoder(sae, scaler: ActivationScaler):
    """The training decoder, and the scaling undone."""

    def decode(features: torch.Tensor) -> torch.Tensor:
        x = sae.decode(features)
        if scaler.whitening is not None:
            white = scaler.whitening
            x = x @ white.inverse_matrix.double() + white.mean.double()
        return x / scaler.scaling_factor if scaler.scaling_factor is not None else x

    return decode


def check_files() -> None:
    for path in HERE.glob("*/sae_weights.safetensors"):
        assert load_file(path), path


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    grid()
    final_saves()
    raw_checkpoints()
    check_files()
