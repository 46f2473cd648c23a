"""A tokenizer with tokens that the model has no embedding for, on the command line."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

from fpo.world import assets
from tests.cli.conftest import Fpo
from tests.helpers import BACKENDS

SETTINGS = ("--iters", "1", "--batch-size", "2", "--no-preflight", "--alpha", "0")


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """The world's model, not resized, with a tokenizer that knows words and a pad more."""
    folder = tmp_path / "grown"
    shutil.copytree(assets().model, folder)
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(folder)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer.add_tokens([f"zyx{i}" for i in range(len(tokenizer), size)])
    tokenizer.add_tokens(["zyxword"])
    assert tokenizer.convert_tokens_to_ids("zyxword") == size
    tokenizer.add_special_tokens({"pad_token": "<|unused|>"})
    tokenizer.save_pretrained(folder)
    return folder


def rows(path: Path, *words: str) -> Path:
    lines = [{"prompt": "hello", "chosen": f" {word}", "rejected": " no"} for word in words]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_token_without_an_embedding_ends_a_run_before_it_starts(
    fpo: Fpo, grown: Path, tmp_path: Path, backend: str
) -> None:
    size = json.loads((grown / "config.json").read_text())["vocab_size"]
    data = rows(tmp_path / "pairs.jsonl", "yes", "yes zyxword")
    out = tmp_path / "run"
    ran = fpo(
        *("train", "--model", grown, "--backend", backend, "--data", data, "--output", out),
        *SETTINGS,
    )
    assert ran.code == 2
    told = " ".join(ran.err.split())
    assert f"row 2 holds the token id {size} ('zyxword')" in told
    assert f"the model has embeddings for {size} tokens, 0 to {size - 1}" in told
    assert not out.exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unused_pad_token_is_no_matter(
    fpo: Fpo, grown: Path, tmp_path: Path, backend: str
) -> None:
    data = rows(tmp_path / "pairs.jsonl", "yes", "yes yes")
    out = tmp_path / "run"
    ran = fpo(
        *("train", "--model", grown, "--backend", backend, "--data", data, "--output", out),
        *SETTINGS,
    )
    assert ran.code == 0, ran.err
