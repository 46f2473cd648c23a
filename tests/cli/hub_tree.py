"""A folder laid out as the hub's cache: tiny random models and autoencoders under real names."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from fpo.world import assets
from tests.backends.families import write_family

GEMMA = "google/gemma-3-270m-it"
GEMMA_SCOPE = "google/gemma-scope-2-270m-it"
GEMMA_SAE = "resid_post_all/layer_17_width_16k_l0_big"
QWEN = "Qwen/Qwen3-1.7B-Base"
QWEN_SCOPE = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
REVISION = "0123456789abcdef" * 2 + "01234567"
WIDTH, FEATURES = 32, 96


def lay_out(cache: Path, made: Path) -> None:
    """Write the four repositories under `cache`; `made` is a folder for what they are made of."""
    write_chat_model("gemma3_text", made / "gemma", blocks=18)
    write_chat_model("qwen3", made / "qwen", blocks=28)
    write_gemma_scope(made / "gemma-scope" / GEMMA_SAE)
    write_qwen_scope(made / "qwen-scope" / "layer27.sae.pt")
    for name, folder in (
        (GEMMA, "gemma"),
        (QWEN, "qwen"),
        (GEMMA_SCOPE, "gemma-scope"),
        (QWEN_SCOPE, "qwen-scope"),
    ):
        publish(cache, name, made / folder)


def publish(cache: Path, name: str, folder: Path) -> None:
    """Put a folder's files where the hub's library keeps those of a repository."""
    repository = cache / ("models--" + name.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    (repository / "blobs").mkdir()
    for file in filter(Path.is_file, folder.rglob("*")):
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        link = repository / "snapshots" / REVISION / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)


def write_chat_model(family: str, folder: Path, *, blocks: int) -> None:
    """A tiny random model with the quickstart world's tokenizer and chat template."""
    world = json.loads((assets().model / "config.json").read_text())
    tokens = {k: world[k] for k in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    write_family(family, folder, num_hidden_layers=blocks, **tokens)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(assets().model / name, folder / name)


def write_gemma_scope(folder: Path) -> None:
    """A Gemma Scope 2 checkpoint."""
    folder.mkdir(parents=True)
    tensors = {name.replace("W_", "w_"): weight for name, weight in _weights().items()}
    tensors["threshold"] = np.full(FEATURES, 0.1, np.float32)
    save_file(tensors, folder / "params.safetensors")


def write_qwen_scope(file: Path) -> None:
    """A Qwen Scope checkpoint, whose matrices are stored the other way round."""
    file.parent.mkdir(parents=True)
    turned = {k: v.T.copy() if v.ndim == 2 else v for k, v in _weights().items()}
    torch.save({name: torch.from_numpy(weight) for name, weight in turned.items()}, file)


def _weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {
        "W_enc": (WIDTH, FEATURES),
        "W_dec": (FEATURES, WIDTH),
        "b_enc": FEATURES,
        "b_dec": WIDTH,
    }
    return {n: generator.normal(size=s).astype(np.float32) / 4 for n, s in shapes.items()}
