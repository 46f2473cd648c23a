"""Tiny checkpoints of every published release, in the exact layout that SAELens's loaders read.

Nothing of the releases but their file names, keys and configurations is here: the numbers are drawn
from the path. `EXTRA` are layouts that SAELens reads from a folder and no release has.
"""

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fpo_convert.releases import Release, all_releases
from tests.convert.sae_files import D_IN, cfg_v6

Arrays = dict[str, np.ndarray]
K = 5
D_SAE = 128
"""More than the k of any release, some of which stands in a name alone."""

LEGACY = {
    "d_in": D_IN,
    "d_sae": D_SAE,
    "dtype": "torch.float32",
    "device": "cpu",
    "activation_fn_str": "relu",
    "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False,
    "hook_head_index": None,
    "context_size": 128,
    "prepend_bos": True,
    "normalize_activations": "none",
    "sae_lens_training_version": None,
}


def write_all(root: Path, chosen: list[Release] | None = None) -> int:
    """Every release's files under root/owner/repository; how many autoencoders there are."""
    for release in all_releases() if chosen is None else chosen:
        write(root, release)
    return len(list(root.iterdir()))


def write(root: Path, release: Release) -> None:
    """The files of one autoencoder where its repository has them."""
    rng = np.random.default_rng(zlib.crc32(release.address.encode()))
    WRITERS[release.loader](root / release.repo, release, rng)


def arrays(
    rng: np.random.Generator, *, gated: bool = False, threshold: bool = False, d_out: int = D_IN
) -> Arrays:
    """SAELens's tensors, float32, with thresholds that about half of the features pass."""
    vectors = ("b_gate", "r_mag", "b_mag") if gated else ("b_enc",)
    found = {
        "W_enc": rng.normal(size=(D_IN, D_SAE)),
        "W_dec": rng.normal(size=(D_SAE, d_out)),
        "b_dec": rng.normal(size=d_out),
        **{name: rng.normal(size=D_SAE) * 0.3 for name in vectors},
    }
    found |= {"threshold": np.abs(rng.normal(size=D_SAE))} if threshold else {}
    return {name: array.astype(np.float32) for name, array in found.items()}


def save_folder(folder: Path, tensors: Arrays, cfg: dict[str, Any]) -> None:
    """cfg.json and sae_weights.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save(tensors, folder / "sae_weights.safetensors")


def save(tensors: Arrays, path: Path) -> None:
    """A safetensors file of arrays in row-major order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)


def save_pt(path: Path, content: dict[str, Any]) -> None:
    """A torch file of a state dictionary."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    made = {
        key: torch.from_numpy(np.ascontiguousarray(value))
        if isinstance(value, np.ndarray)
        else torch.tensor(value)
        for key, value in content.items()
    }
    torch.save(made, path)


def linear(tensors: Arrays, encoder: str = "encoder", decoder: str = "decoder") -> Arrays:
    """The names and orientation of two torch.nn.Linear layers."""
    return {
        f"{encoder}.weight": tensors["W_enc"].T,
        f"{encoder}.bias": tensors["b_enc"],
        f"{decoder}.weight": tensors["W_dec"].T,
        f"{decoder}.bias": tensors["b_dec"],
    }


def sae_lens(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """Folders of SAELens's own, of the era in which each release was saved."""
    hook = release.id if release.id.count(".") == 2 else f"blocks.{release.layer}.hook_resid_pre"
    hook = hook.rstrip("0123456789").rstrip("_")
    cfg = LEGACY | {"model_name": release.model, "hook_name": hook, "hook_layer": release.layer}
    tensors = arrays(rng)
    if "matryoshka" in release.release:
        about = {"model_name": release.model, "hook_name": hook}
        tensors = arrays(rng, threshold=True)
        cfg = cfg_v6("jumprelu", d_sae=D_SAE, metadata=about)
    elif "-v5-" in release.release:
        cfg |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
        cfg |= {"architecture": "standard", "normalize_activations": "layer_norm"}
        cfg |= {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    elif release.norm_factor is not None:
        cfg |= (
            {"normalize_activations": True}
            if "gemma" in release.model
            else {"normalize_activations": "expected_average_only_in"}
        )
    elif "res-jb" in release.release or "-sm" in release.release:
        cfg |= {"hook_point": cfg.pop("hook_name"), "hook_point_layer": cfg.pop("hook_layer")}
        cfg |= {"hook_point_head_index": cfg.pop("hook_head_index")}
        tensors["scaling_factor"] = np.ones(D_SAE, np.float32)
        del cfg["activation_fn_str"]
    elif release.release.startswith("llama-3"):
        tensors = arrays(rng, gated=True)
        cfg |= {"architecture": "gated"}
    save_folder(repo / release.path, tensors, cfg)


def connor_rob(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """A state dictionary and the settings of its training, side by side."""
    save_pt(repo / release.path, arrays(rng))
    settings = {
        "seed": 49,
        "batch_size": 4096,
        "model_name": "gpt2-small",
        "act_name": f"blocks.{release.layer}.attn.hook_z",
        "act_size": D_IN,
        "dict_size": D_SAE,
        "concat_heads": True,
        "l1_coeff": 1.8,
        "enc_dtype": "fp32",
    }
    name = release.path.split(".pt")[0] + "_cfg.json"
    (repo / name).write_text(json.dumps(settings))


def gemma_2(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """params.npz, and nothing else."""
    folder = repo / release.path
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "params.npz", **arrays(rng, threshold=True))


def gemma_3(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """params.safetensors; every other one without config.json, as some repositories have it."""
    tensors = arrays(rng, threshold=True)
    stored = {name.replace("W_", "w_"): array for name, array in tensors.items()}
    transcoder, affine = "transcoder" in release.path, "affine" in release.path
    if affine:
        stored["affine_skip_connection"] = rng.normal(size=(D_IN, D_IN)).astype(np.float32)
    folder = repo / release.path
    save(stored, folder / "params.safetensors")
    if release.layer % 2:
        return
    block, site = f"model.layers.{release.layer}", release.path.split("/")[0].removesuffix("_all")
    points = {
        "transcoder": f"{block}.pre_feedforward_layernorm.output",
        "resid_post": f"{block}.output",
        "attn_out": f"{block}.self_attn.o_proj.input",
        "mlp_out": f"{block}.post_feedforward_layernorm.output",
    }
    cfg = {
        "hf_hook_point_in": points[site],
        "hf_hook_point_out": f"{block}.post_feedforward_layernorm.output"
        if transcoder
        else points[site],
        "width": D_SAE,
        "model_name": release.repo.split("/")[1].replace("gemma-scope-2", "gemma-v3"),
        "architecture": "jump_relu",
        "l0": 60,
        "affine_connection": affine,
        "type": "transcoder" if transcoder else "sae",
    }
    (folder / "config.json").write_text(json.dumps(cfg))


def _unit_decoder(tensors: Arrays) -> Arrays:
    """With decoder rows of norm 1, as their authors' library leaves them for inference."""
    norms = np.linalg.norm(tensors["W_dec"], axis=1, keepdims=True)
    return tensors | {"W_dec": tensors["W_dec"] / norms}


def llama_scope(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """hyperparams.json and checkpoints/final.safetensors; one threshold for all features."""
    assert release.norm_factor
    hook = {"resid_post": "hook_resid_post", "mlp_out": "hook_mlp_out", "attn_out": "hook_attn_out"}
    point = f"blocks.{release.layer}.{hook[release.site]}"
    cfg = {
        "hook_point_in": point,
        "hook_point_out": point,
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "expansion_factor": D_SAE // D_IN,
        "d_model": D_IN,
        "d_sae": D_SAE,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {
            "in": D_IN**0.5 / release.norm_factor,
            "out": D_IN**0.5 / release.norm_factor,
        },
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.25,
        "sparsity_include_decoder_norm": True,
        "use_glu_encoder": False,
    }
    folder = repo / release.path
    tensors = _unit_decoder(arrays(rng))
    tensors["b_enc"] *= release.norm_factor
    save(linear(tensors), folder / "checkpoints" / "final.safetensors")
    (folder / "hyperparams.json").write_text(json.dumps(cfg))


def llama_scope_r1(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """config.json and sae_weights.safetensors, with the logarithms of the thresholds."""
    assert release.norm_factor
    point = f"blocks.{release.layer}.hook_resid_post"
    cfg = {
        "sae_type": "sae",
        "hook_point_in": point,
        "hook_point_out": point,
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "d_model": D_IN,
        "expansion_factor": D_SAE // D_IN,
        "act_fn": "jumprelu",
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": True,
        "use_glu_encoder": False,
    }
    tensors = _unit_decoder(arrays(rng, threshold=True))
    tensors["b_enc"] *= release.norm_factor
    stored = linear(tensors) | {"log_jumprelu_threshold": np.log(tensors["threshold"])}
    folder = repo / release.path
    save(stored, folder / "sae_weights.safetensors")
    (folder / "config.json").write_text(json.dumps(cfg))


def dictionary_learning(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """ae.pt and config.json, in the class that the release's name tells."""
    name = f"{release.repo} {release.path}".lower()
    w = arrays(rng, gated="gated" in name)
    content: dict[str, Any] = {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T}
    extra: dict[str, Any] = {}
    if "gated" in name:
        kind = "GatedAutoEncoder"
        content |= {"decoder_bias": w["b_dec"], "r_mag": w["r_mag"]}
        content |= {"gate_bias": w["b_gate"], "mag_bias": w["b_mag"]}
    elif "matryoshka" in name:
        kind, extra = "MatryoshkaBatchTopKSAE", {"k": K}
        content = {"W_enc": w["W_enc"], "W_dec": w["W_dec"], "b_enc": w["b_enc"]}
        content |= {"b_dec": w["b_dec"], "k": K, "threshold": 0.75}
        content |= {"group_sizes": [8, D_SAE - 8]}
    elif "andyrdt" in name:
        kind, extra = "BatchTopKSAE", {"k": K}
        content |= {"encoder.bias": w["b_enc"], "b_dec": w["b_dec"], "k": K, "threshold": 0.75}
    elif "topk" in name:
        kind, extra = "AutoEncoderTopK", {"k": K}
        content |= {"encoder.bias": w["b_enc"], "b_dec": w["b_dec"], "k": K}
    else:
        kind = "AutoEncoder"
        content |= {"encoder.bias": w["b_enc"], "bias": w["b_dec"]}
    trainer = {
        "dict_class": kind,
        "trainer_class": "Trainer",
        "activation_dim": D_IN,
        "dict_size": D_SAE,
        "lr": 3e-4,
        "steps": 1000,
        "seed": 0,
        "layer": release.layer,
        "lm_name": release.model,
        "submodule_name": f"resid_post_layer_{release.layer}",
    }
    folder = repo / release.path
    save_pt(folder / "ae.pt", content)
    config = {"trainer": trainer | extra, "buffer": {"d_submodule": D_IN, "ctx_len": 128}}
    (folder / "config.json").write_text(json.dumps(config))


def linear_pt(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """qresearch's two linear layers."""
    save_pt(repo / release.path, linear(arrays(rng)))


def goodfire(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """Goodfire's two linear layers."""
    names = ("encoder_linear", "decoder_linear")
    save_pt(repo / release.path, linear(arrays(rng), *names))


def qwen_scope(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """layerN.sae.pt, both matrices the other way round."""
    w = arrays(rng)
    save_pt(repo / release.path, w | {"W_enc": w["W_enc"].T, "W_dec": w["W_dec"].T})


def mwhanna(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """layer_N.safetensors and two configurations of the whole repository, one misspelt in some."""
    w = arrays(rng)
    save(w | {"W_enc": w["W_enc"].T}, repo / release.path)
    training = {"d_model": D_IN, "d_feature": D_SAE, "batch_size": 4096}
    name = "wanb-config.yaml" if "1.7b" in release.repo else "wandb-config.yaml"
    wrapped = "".join(f"{key}:\n  value: {value}\n" for key, value in training.items())
    (repo / name).write_text(wrapped)
    if "14b" not in release.repo:
        size = release.model.removeprefix("qwen3-").upper()
        (repo / "config.yaml").write_text(
            f"model_name: Qwen/Qwen3-{size}\nmodel_kind: transcoder_set\n"
            "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
        )


def clt_layer(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """Layer N of a cross-layer transcoder: W_enc_N.safetensors, whose decoder writes to many."""
    n, w = release.layer, arrays(rng)
    named = {f"W_enc_{n}": w["W_enc"].T, f"b_enc_{n}": w["b_enc"], f"b_dec_{n}": w["b_dec"]}
    save(named, repo / f"W_enc_{n}.safetensors")
    decoder = rng.normal(size=(D_SAE, 3, D_IN)).astype(np.float32)
    save({f"W_dec_{n}": decoder}, repo / f"W_dec_{n}.safetensors")
    (repo / "config.yaml").write_text(
        "model_name: google/gemma-2-2b\nmodel_kind: cross_layer_transcoder\n"
        "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    )


def temporal(repo: Path, release: Release, rng: np.random.Generator) -> None:
    """conf.yaml and latest_ckpt.safetensors of an encoder that reads whole sequences."""
    w = arrays(rng)
    stored = {"D": w["W_dec"], "b": w["b_dec"], "E": w["W_enc"]}
    save(stored, repo / release.path / "latest_ckpt.safetensors")
    (repo / release.path / "conf.yaml").write_text(
        f"llm:\n  dimin: {D_IN}\nsae:\n  exp_factor: {D_SAE // D_IN}\n"
    )


WRITERS: dict[str, Callable[[Path, Release, np.random.Generator], None]] = {
    "sae_lens": sae_lens,
    "connor_rob_hook_z": connor_rob,
    "gemma_2": gemma_2,
    "gemma_2_transcoder": gemma_2,
    "gemma_3": gemma_3,
    "llama_scope": llama_scope,
    "llama_scope_r1_distill": llama_scope_r1,
    "dictionary_learning_1": dictionary_learning,
    "deepseek_r1": linear_pt,
    "goodfire": goodfire,
    "qwen_scope": qwen_scope,
    "mwhanna_transcoder": mwhanna,
    "mntss_clt_layer_transcoder": clt_layer,
    "temporal": temporal,
}


def folders(root: Path) -> Iterator[tuple[str, Path]]:
    """SAELens folders of every architecture and normalisation: a name and the folder."""
    kinds: dict[str, tuple[Arrays, dict[str, Any]]] = {}
    for number, kind in enumerate(
        ("standard", "gated", "jumprelu", "topk", "abstopk", "topk-decoder-norm")
    ):
        rng = np.random.default_rng(number)
        cfg = cfg_v6(kind.partition("-")[0], d_sae=D_SAE)
        if "topk" in kind:
            cfg |= {"k": K, "rescale_acts_by_decoder_norm": "norm" in kind}
        kinds[kind] = arrays(rng, gated=kind == "gated", threshold=kind == "jumprelu"), cfg
    tensors, cfg = kinds["standard"]
    for normalize in ("layer_norm", "constant_norm_rescale"):
        kinds[normalize] = tensors, cfg | {"normalize_activations": normalize}
    kinds["no-b_dec"] = tensors, cfg | {"apply_b_dec_to_input": False}
    z = cfg["metadata"] | {"hook_name": "blocks.2.attn.hook_z"}
    kinds["hook_z"] = tensors, cfg | {"reshape_activations": "hook_z", "metadata": z}
    for number, kind in enumerate(
        ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
    ):
        rng = np.random.default_rng(100 + number)
        made = arrays(rng, threshold="jumprelu" in kind)
        if "skip" in kind:
            made["W_skip"] = rng.normal(size=(D_IN, D_IN)).astype(np.float32)
        about = {"hook_name": "blocks.2.mlp.hook_in", "hook_name_out": "blocks.2.hook_mlp_out"}
        cfg = cfg_v6(kind, d_sae=D_SAE, d_out=D_IN, apply_b_dec_to_input=False, metadata=about)
        kinds[kind] = made, cfg
    for name, (made, cfg) in kinds.items():
        save_folder(root / name, made, cfg)
        yield name, root / name
