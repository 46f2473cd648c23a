"""The quickstart world: grammar, oracle, pairs and the files that ship with the package."""

import importlib
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pair_rows
import pytest
from pair_rows import NATS_AHEAD, length, make_pairs

from fpo import world
from fpo.world import ATTRIBUTES, Traits, assets, make_prompt, make_reply, score
from fpo.world.oracle import is_well_formed, marker_words

ALL_TRAITS = [Traits(*values) for values in itertools.product(*ATTRIBUTES.values())]


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def contents(row: dict[str, Any]) -> tuple[str, str, str]:
    prompt, chosen, rejected = (row[key][0]["content"] for key in ("prompt", "chosen", "rejected"))
    return prompt, chosen, rejected


@pytest.mark.parametrize("traits", ALL_TRAITS, ids=str)
def test_oracle_recovers_every_attribute(traits: Traits) -> None:
    rng = random.Random(0)
    for _ in range(50):
        prompt = make_prompt(rng)
        reply = make_reply(rng, prompt.item, traits)
        result = score(prompt.text, reply)
        for name, (_, second) in ATTRIBUTES.items():
            assert getattr(result, name) == float(getattr(traits, name) == second), reply
        assert (result.well_formed, result.on_topic) == (1.0, 1.0), reply
        assert result.preferred == float(traits.politeness == "polite")


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "   ",
        "{",
        '{"hello":',
        "[" * 5000,
        "null",
        '{"view":{"a":[1]}}',
        "\x00\ud800",
        "thank " * 500,
        "Thank you for your question.",
        "Thank you for your question. The lamp is",
        "日本語 " * 20,
        "have a lovely day. the lamp is very neat and handy. it deserves many stars.",
    ],
)
def test_garbage_is_not_well_formed(garbage: str) -> None:
    result = score("Tell me about the red lamp that Omar saw today.", garbage)
    assert result.well_formed == 0
    assert result.preferred == 0
    assert all(0 <= value <= 1 for value in vars(result).values())


def test_truncation_and_word_swaps_break_well_formedness() -> None:
    rng = random.Random(1)
    for traits in ALL_TRAITS:
        reply = make_reply(rng, 0, traits)
        words = reply.split(" ")
        assert not is_well_formed(reply[:-1])
        assert not is_well_formed(reply + " " + words[0])
        assert not is_well_formed(" ".join([*words[:2], *words[1:]]))


def test_mixed_manners_are_half_polite_and_well_formed() -> None:
    prompt = "Tell me about the red lamp that Omar saw today."
    mixed = "Good morning, dear friend. With the lamp the style is dull. Have a lousy day."
    result = score(prompt, mixed)
    assert (result.well_formed, result.on_topic) == (1.0, 1.0)
    assert 0 < result.politeness < 1
    assert score(prompt, mixed.replace("lamp", "lamp lamp")).preferred == 0


def test_another_item_is_off_topic() -> None:
    rng = random.Random(2)
    prompt = make_prompt(rng)
    reply = make_reply(rng, prompt.item + 1, ALL_TRAITS[0])
    assert score(prompt.text, reply).on_topic == 0
    assert score("Hello?", reply).on_topic == 0


def test_replies_are_many_and_attributes_independent_words() -> None:
    rng = random.Random(3)
    replies = {make_reply(rng, make_prompt(rng).item, traits) for traits in ALL_TRAITS * 500}
    assert len(replies) > 7_900  # of 8,000
    for attribute in ATTRIBUTES:
        first, second = marker_words(attribute)
        assert first.isdisjoint(second)


def test_traits_and_pairs_refuse_unknown_values() -> None:
    with pytest.raises(ValueError, match="expected rude or polite"):
        Traits("kind", "positive", "english", "plain")
    with pytest.raises(ValueError, match="Unknown attribute"):
        make_pairs("length", 1, 0)
    with pytest.raises(ValueError, match="choose plain or json"):
        make_pairs("format", 1, 0, prefer="xml")


@pytest.mark.parametrize("vary_others", [False, True])
@pytest.mark.parametrize("attribute", list(ATTRIBUTES))
def test_pairs_differ_in_their_attribute(attribute: str, vary_others: bool) -> None:
    same = dict.fromkeys(ATTRIBUTES, 0)
    rows = make_pairs(attribute, 100, seed=5, vary_others=vary_others)
    for row in rows:
        prompt, chosen, rejected = contents(row)
        good, bad = score(prompt, chosen), score(prompt, rejected)
        assert (getattr(good, attribute), getattr(bad, attribute)) == (1.0, 0.0)
        for name in ATTRIBUTES:
            same[name] += getattr(good, name) == getattr(bad, name)
    for name in set(ATTRIBUTES) - {attribute}:
        assert 25 < same[name] < 75 if vary_others else same[name] == 100


def test_prefer_turns_pairs_round() -> None:
    prompt, chosen, _ = contents(make_pairs("politeness", 1, 6, prefer="rude")[0])
    assert score(prompt, chosen).politeness == 0


def test_lengths_are_matched() -> None:
    for attribute in ("politeness", "sentiment"):
        sides = [contents(row)[1:] for row in make_pairs(attribute, 400, seed=7)]
        surplus = [length(chosen) - length(rejected) for chosen, rejected in sides]
        assert abs(sum(surplus)) <= 8
        longer, shorter = sum(s > 0 for s in surplus), sum(s < 0 for s in surplus)
        assert 0.6 < longer / shorter < 1.7


def test_a_likelihood_makes_near_ties() -> None:
    def likelihood(prompt: str, reply: str) -> float:
        return -random.Random(prompt + reply).random() / 10

    def gap(row: dict[str, Any]) -> float:
        prompt, chosen, rejected = contents(row)
        return likelihood(prompt, chosen) - likelihood(prompt, rejected)

    rows = make_pairs("politeness", 60, 8, likelihood=likelihood)
    assert max(abs(gap(row)) for row in rows) <= 2 * NATS_AHEAD
    assert abs(sum(gap(row) for row in rows)) <= NATS_AHEAD
    assert make_pairs("politeness", 20, 8, likelihood=likelihood) == rows[:20]


def test_shipped_texts_come_from_the_seed(tmp_path: Path) -> None:
    pair_rows.dump_jsonl(
        pair_rows.make_unrelated_rows(100, pair_rows.UNRELATED_SEED), tmp_path / "again.jsonl"
    )
    assert (tmp_path / "again.jsonl").read_bytes() == assets().unrelated.read_bytes()


def test_shipped_pairs_come_from_the_seed(likelihood: Any) -> None:
    """The first of them, and the prompts of all: `build_pairs.py` makes the whole files."""
    attribute, seed = pair_rows.PAIRS_ATTRIBUTE, pair_rows.PAIRS_SEED
    train, valid = (read_rows(path) for path in (assets().train, assets().valid))
    assert make_pairs(attribute, 10, seed, likelihood=likelihood) == valid[:10]
    prompts = [row["prompt"] for side in pair_rows.make_splits(attribute, seed) for row in side]
    assert prompts == [row["prompt"] for row in train + valid]


def test_shipped_pairs_are_near_ties_that_start_at_chance(likelihood: Any) -> None:
    """Under the shipped model, as measured by the script that made them."""
    gaps = []
    for row in read_rows(assets().valid):
        prompt, chosen, rejected = contents(row)
        gaps.append(likelihood(prompt, chosen) - likelihood(prompt, rejected))
    assert max(map(abs, gaps)) <= 2 * NATS_AHEAD
    assert 0.4 < sum(gap > 0 for gap in gaps) / len(gaps) < 0.6


def test_shipped_pairs_differ_in_politeness_alone() -> None:
    for row in read_rows(assets().train) + read_rows(assets().valid):
        prompt, chosen, rejected = contents(row)
        good, bad = score(prompt, chosen), score(prompt, rejected)
        assert (good.preferred, bad.politeness, bad.well_formed) == (1.0, 0.0, 1.0)
        for name in ("sentiment", "language", "format"):
            assert getattr(good, name) == getattr(bad, name)


def test_shipped_splits_share_no_prompt() -> None:
    train, valid = (
        [contents(row)[0] for row in read_rows(path)] for path in (assets().train, assets().valid)
    )
    assert (len(train), len(valid)) == (800, 200)
    assert len(set(train) | set(valid)) == 1000


def test_data_are_small_and_hold_no_pickles() -> None:
    files = [path for path in world.world_path().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6
    assert {path.suffix for path in files} <= {".json", ".jsonl", ".jinja", ".safetensors", ".md"}


def test_import_needs_the_standard_library_only() -> None:
    code = "import sys, fpo.world; print([m for m in ('torch', 'mlx', 'transformers', 'numpy')"
    code += " if m in sys.modules])"
    env = {"PYTHONPATH": str(Path(world.__file__).parents[2])}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(assets().model)


@pytest.fixture(scope="module")
def likelihood() -> Any:
    """The shipped model's, as `build_pairs.py` measures it."""
    scripts = Path(__file__).parents[2] / "examples" / "world"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(scripts)
        return importlib.import_module("build_pairs").model_likelihood(assets().model)


def test_prompt_is_a_token_prefix(tokenizer: Any) -> None:
    for row in read_rows(assets().valid)[:50]:
        head = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=False
        )
        for side in ("chosen", "rejected"):
            full = tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=False)
            assert full[: len(head)] == head
            assert full[-1] == tokenizer.convert_tokens_to_ids("<|end|>")
            assert len(full) <= 64
            assert tokenizer.decode(full[len(head) : -1]) == row[side][0]["content"]


@pytest.mark.parametrize("text", ["Écoute, idiot.  Two  spaces\n", '{"a":"b"}', "日本 \t🙂", " ."])
def test_tokenizer_round_trips_any_text(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_model_and_sae_fit_each_other() -> None:
    model = json.loads((assets().model / "config.json").read_text())
    sae = json.loads((assets().sae / "cfg.json").read_text())
    assert model["rope_theta"] == model["rope_parameters"]["rope_theta"]
    assert sae["d_in"] == model["hidden_size"]
    assert sae["metadata"]["hook_name"] == "blocks.2.hook_resid_post"
    assert model["num_hidden_layers"] > 2


def test_model_loads_and_knows_the_grammar(tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(assets().model)
    assert model.dtype == torch.float32
    text = read_rows(assets().unrelated)[0]["text"]
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        assert model(ids, labels=ids).loss.item() < 3.0
