"""Whether a model is the one that an autoencoder was made for, told by names."""

import json

import pytest

from fpo_core.models.folder import ModelFolder
from fpo_core.models.lineage import doubt, family_key, model_names, same_key
from fpo_core.sae.compatibility import model_doubt
from fpo_core.sae.metadata import SaeMeta


@pytest.mark.parametrize(
    ("name", "same", "family"),
    [
        ("google/gemma-2-2b-it", "gemma-2-2b-it", "gemma-2-2b"),
        ("mlx-community/gemma-2-2b-it-4bit", "gemma-2-2b-it", "gemma-2-2b"),
        ("google/gemma-3-1b-pt", "gemma-3-1b", "gemma-3-1b"),
        ("Qwen/Qwen3-1.7B-Base", "qwen3-1.7b-base", "qwen3-1.7b"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama-3-8b-instruct", "llama-3-8b"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistral-7b-instruct-v0.2", "mistral-7b"),
        ("gpt2-small", "gpt2-small", "gpt2"),
        (
            "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
            "deepseek-r1-distill-llama-8b",
            "llama-3.1-8b",
        ),
    ],
)
def test_names(name, same, family):
    assert (same_key(name), family_key(name)) == (same, family)


@pytest.mark.parametrize(
    ("made_for", "names", "model_type", "found"),
    [
        ("gemma-2-2b", ["google/gemma-2-2b-it"], "gemma2", None),
        ("gemma-2-2b", ["HuggingFaceTB/SmolLM2-1.7B"], "llama", "type llama"),
        ("meta-llama/Llama-3.2-1B", ["HuggingFaceTB/SmolLM2-1.7B"], "llama", "SmolLM2"),
        ("gemma-2-2b", ["./mine"], "gemma2", None),
        ("gemma-2-2b", ["./mine"], "llama", "type llama"),
        ("gemma-2-2b", ["./mine", "google/gemma-2-2b"], None, None),
        ("somebody/own", ["./mine"], "llama", None),
        ("", ["google/gemma-2-2b"], "gemma2", None),
        ("gpt2-small", ["openai-community/gpt2"], "gpt2", None),
    ],
)
def test_doubts(made_for, names, model_type, found):
    reason = doubt(made_for, names, model_type)
    assert (reason is None) if found is None else (found in (reason or ""))


def test_a_model_is_known_by_what_its_folder_says(tmp_path):
    folder = tmp_path / "models--google--gemma-2-2b-it" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    (folder / "README.md").write_text('---\ntags: [x]\nbase_model: "google/gemma-2-2b"\n---\n')
    model = ModelFolder(folder, "snapshot")
    assert model_names(model) == ["snapshot", "google/gemma-2-2b-it", "google/gemma-2-2b"]


def test_the_sentence(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    meta = SaeMeta(architecture="relu", d_in=2, d_sae=4, model_name="google/gemma-2-2b")
    sentence = model_doubt(meta, ModelFolder(tmp_path, "HuggingFaceTB/SmolLM2-135M"))
    assert sentence is not None
    assert "was trained on google/gemma-2-2b, and this one is of type llama" in sentence
