"""The model card: front matter for the hub, settings in force, and no word of the machine."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from fpo.provenance import command_of
from fpo_core.adapters.merge_check import FuseCheck
from fpo_core.config import TrainConfig
from fpo_core.evaluation.model_card import (
    RunFacts,
    fuse_card,
    is_hub_name,
    shown,
    train_card,
    write_card,
)
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features
from tests.helpers import random_sae

CONFIG = TrainConfig(
    model="user/base",
    data="/home/somebody/secret/pairs.jsonl",
    sae="/home/somebody/sae.safetensors",
    output="/home/somebody/run",
    cache="/home/somebody/cache",
    fine_tune_type="dora",
    target_modules=("q_proj", "v_proj"),
    beta=2.0,
)
CHECK = FuseCheck(largest=2e-5, rms=1e-5, moved=0.25, tolerance=1e-4)


def facts(base="user/base"):
    share = {"value": 0.5, "low": 0.25, "high": 0.75}
    return RunFacts(
        base=base,
        backend="torch",
        steps=7,
        rows={"train": 20, "valid": 5},
        data="abc123",
        features=Features.of(random_sae(4, 8), Hook.parse("blocks.1.hook_resid_post"), ()),
        before={"pairs": 5, "raw_accuracy": share, "loss": 0.6931},
        after={
            "pairs": 5,
            "raw_accuracy": share | {"value": 0.75},
            "loss": 0.125,
            "fpo/kl_chosen": 1.5,
        },
    )


def front_matter(card):
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def test_a_card_of_training():
    card = train_card(CONFIG, facts())
    front = front_matter(card)
    assert front["base_model"] == "user/base"
    assert front["library_name"] == "peft"
    assert front["tags"] == ["fpo-mlx", "preference-optimization", "fpo", "dora"]
    for line in (
        "| target_modules | q_proj, v_proj |",
        "| beta | 2.0 |",
        "| alpha | 5.0 |",  # the objective's default, in force
        "| learning_rate | 0.0001 |",
        "| `raw_accuracy` | 0.500 [0.250, 0.750] | 0.750 [0.250, 0.750] |",
        "| `loss` | 0.6931 | 0.1250 |",
        "| `fpo/kl_chosen` |  | 1.5 |",
        "`pairs.jsonl`: 20 train pairs, 5 valid pairs. Fingerprint of their token ids:",
        "On 5 pairs.",
        "## Licence",
    ):
        assert line in card.splitlines(), line
    assert "relu, 8 features of 4 dimensions at `blocks.1.hook_resid_post`" in card
    assert "somebody" not in card
    assert "cache" not in card


def test_a_local_base_has_no_address_on_the_hub(tmp_path):
    card = train_card(CONFIG, facts(base=str(tmp_path / "my-model")))
    assert "base_model" not in front_matter(card)
    assert "# my-model, dora" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("name", "is_hub", "short"),
    [
        ("user/model-1.5", True, "user/model-1.5"),
        ("/data/models/base", False, "base"),
        ("./base", False, "base"),
        ("a/b/c", False, "c"),
        ("~/base", False, "base"),
        ("base/", False, "base"),
    ],
)
def test_names_and_paths(name, is_hub, short):
    assert (is_hub_name(name), shown(name)) == (is_hub, short)


def test_a_folder_that_looks_like_a_hub_name_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("user/model").mkdir(parents=True)
    assert (is_hub_name("user/model"), shown("user/model")) == (False, "model")


def test_a_merged_models_card_includes_the_adapters():
    card = fuse_card("user/base", "dora", CHECK, ["bfloat16"], train_card(CONFIG, facts()))
    assert front_matter(card)["library_name"] == "transformers"
    assert card.count("---\nlibrary_name") + card.count("\n# ") == 1
    assert "(bfloat16)" in card
    assert "at most 2.0e-05" in card
    assert "| `loss` | 0.6931 | 0.1250 |" in card
    assert card.count("## Licence") == 1
    alone = fuse_card("user/base", "lora", CHECK, ["float32"], "# Somebody's own words")
    assert "Somebody" not in alone
    assert alone.count("## Licence") == 1


def test_a_merged_models_card_shows_how_to_run_that_and_not_the_adapter():
    adapter = train_card(CONFIG, facts())
    assert "peft" in adapter
    card = fuse_card("user/base", "dora", CHECK, ["bfloat16"], adapter, result="me/merged")
    assert card.count("## Use") == 1
    assert "AutoModelForCausalLM.from_pretrained('me/merged')" in card
    assert "mlx_lm.generate --model me/merged" in card
    assert "PeftModel" not in card
    assert "## Settings" in card


@pytest.mark.parametrize(
    ("judge", "shown"),
    [
        ("/home/somebody/secret/rules.yaml", "rules.yaml"),
        ("https://me:password@judge.internal/v1", "URL"),
        ("oracle", "oracle"),
    ],
)
def test_the_command_of_a_card_names_no_private_place_of_a_judge(judge, shown):
    judged = dict(online="plain", judge=judge, judge_model="m")
    private = dict(judge_template="/home/somebody/ask.yaml", verdicts="/home/somebody/v.jsonl")
    command = command_of(dataclasses.replace(CONFIG, **judged, **private))
    assert f"--judge {shown} " in command
    assert "--judge-template ask.yaml" in command
    assert "somebody" not in command
    assert "password" not in command


def test_a_readme_that_the_user_wrote_is_left_alone(tmp_path):
    card = train_card(CONFIG, facts())
    assert write_card(tmp_path, card)
    assert write_card(tmp_path, card + "again")  # ours is replaced
    assert (tmp_path / "README.md").read_text().endswith("again")
    (tmp_path / "README.md").write_text("# Mine\n")
    assert not write_card(tmp_path, card)
    assert (tmp_path / "README.md").read_text() == "# Mine\n"


def test_a_card_shows_how_to_run_it_what_came_of_it_and_what_made_it():
    told = {
        "verdict": ["Learned? yes.", "Next: nothing."],
        "command": "fpo train --model user/base",
        "versions": {"fpo-mlx": "1.2", "absent": None},
        "chat": True,
    }
    card = train_card(CONFIG, dataclasses.replace(facts(), **told))
    assert front_matter(card)["base_model"] == "user/base"
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 1
    compile(blocks[0], "card", "exec")
    assert "PeftModel.from_pretrained(model, 'FOLDER')" in blocks[0]
    assert "AutoTokenizer.from_pretrained('user/base')" in blocks[0]
    assert "apply_chat_template" in blocks[0]
    assert "mlx_lm.generate --model user/base --adapter-path FOLDER" in card
    for line in ("- Learned? yes.", "fpo train --model user/base", "With fpo-mlx 1.2."):
        assert f"\n{line}\n" in card
    assert "somebody" not in card


def test_a_whole_model_needs_no_adapter():
    config = dataclasses.replace(CONFIG, fine_tune_type="full", push_to_hub="me/result")
    card = train_card(config, facts())
    assert "peft" not in card
    assert "AutoModelForCausalLM.from_pretrained('me/result')" in card
    assert "mlx_lm.generate --model me/result" in card


def test_names_of_others_are_shown_and_not_obeyed(tmp_path):
    from fpo_core.adapters.merge_check import FuseCheck
    from fpo_core.evaluation.model_card import fuse_card

    base = tmp_path / "<img src=x>[a](b)|\x1b[2J"
    card = fuse_card(str(base), "lora", FuseCheck(0.0, 0.0, 1.0, 1.0), ["float32"], "")
    assert "\x1b" not in card
    assert r"\<img src=x\>\[a\](b)\|\\x1b\[2J" in card


def test_a_formula_that_is_not_the_authors_own_is_said_to_be_so():
    config = dataclasses.replace(CONFIG, sae=None, objective="asft", beta=None)
    card = train_card(config, dataclasses.replace(facts(), features=None))
    assert "asft is second-hand, from arXiv 2502.01237" in card
    assert "second-hand" not in train_card(CONFIG, facts())
