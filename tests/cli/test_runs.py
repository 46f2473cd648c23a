"""The whole road on the quickstart world, in few steps, on both backends."""

import dataclasses
import itertools
import json
import math
import shutil
from pathlib import Path

import pytest

from fpo.world import assets
from fpo_core.config import TrainConfig

from .conftest import Fpo, model_and_data

BACKENDS = ("torch", "mlx")
FEW = ["--iters", 2, "--batch-size", 4, "--learning-rate", 0.01, "--beta", 1, "--val-pairs", 8]
FEW += ["--greedy-answers", 0, "--preset", "none"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_autoencoders(backend: str, fpo: Fpo, sae: Path, tmp_path: Path) -> None:
    """Read at two layers in one pass; eval finds the run's own store, and D as training had it."""
    other, run = tmp_path / "other.safetensors", tmp_path / "run"
    shutil.copy(sae, other)
    both = ["--sae", f"{sae},{other}", "--hook", "model.layers.2,model.layers.3.mlp"]
    options = [*model_and_data(), *both, "--backend", backend, "--val-pairs", 8, "--json"]
    ran = fpo("train", *options, *FEW, "--output", run)
    assert ran.code == 0, ran.err
    trained = ran.json
    assert trained["before"]["fpo/d_rejected"] == pytest.approx(0, abs=1e-6)
    card = (run / "README.md").read_text()
    assert "blocks.2.hook_resid_post" in card
    assert "blocks.3.hook_mlp_out" in card
    judged = fpo("eval", *options, "--adapter", run, "--samples", 0).json
    assert judged["reference"] == str(run / "reference")
    found = judged["after"]["fpo/d_rejected"]
    assert found == pytest.approx(trained["after"]["fpo/d_rejected"], rel=1e-3)
    refused = fpo("eval", *options[:-1], "--adapter", run, "--feature-weights", "w.json")
    assert (refused.code, "expected one" in refused.err) == (2, True)


def test_degrees_of_preference(fpo: Fpo, world: list[object], tmp_path: Path) -> None:
    """A head beside the adapter: told in log and card, tried by the preflight, in no result."""
    run, weighed = tmp_path / "run", ["--degree-weight", 0.5, "--degree-removal", "random"]
    ran = fpo("train", *world, *FEW, *weighed, "--backend", "torch", "--json", "--output", run)
    assert ran.code == 0, ran.err
    first = ran.json["loss_first"]
    assert first == pytest.approx(math.log(2) + 0.5 * 2 * math.log(4), abs=1e-4), "a head of zeros"
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert "fpo/degree_hit" in next(row for row in logged if row["kind"] == "train")
    assert "eval_fpo/degree" in next(row for row in logged if row["kind"] == "eval")
    assert "degree_weight is our reading of SPO" in (run / "README.md").read_text()
    judged = fpo("eval", *world, "--adapter", run, "--samples", 0, "--backend", "torch", "--json")
    assert judged.code == 0, judged.err


@pytest.mark.parametrize("backend", BACKENDS)
def test_train_eval_generate(backend: str, fpo: Fpo, world: list[object], tmp_path: Path) -> None:
    run, use = tmp_path / "run", ["--backend", backend, "--json"]
    texts = tmp_path / "texts.txt"
    texts.write_text("The red lamp is here.\nA book about the sea.\n")
    measured = ["--text", texts, "--val-pairs", 8]
    ran = fpo("train", *world, *FEW, *use, *measured, "--output", run)
    assert ran.code == 0, ran.err
    trained = ran.json
    assert trained["loss_first"] == pytest.approx(0.693147, abs=1e-4)
    assert trained["loss_last"] < trained["loss_first"]
    assert trained["before"]["fpo/d_rejected"] == pytest.approx(0, abs=1e-6)
    assert trained["after"]["fpo/kl_rejected"] > 0
    assert trained["after"]["perplexity"] > 1
    assert len(trained["verdict"]) <= 6
    kinds = [json.loads(line)["kind"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert kinds[0] == "step0"
    assert kinds[-1] == "done"
    assert json.loads((run / "fpo_config.json").read_text())["sae"] == [str(world[-1])]

    ran = fpo("eval", *world, *use, *measured, "--beta", 1, "--adapter", run, "--samples", 2)
    assert ran.code == 0, ran.err
    judged = ran.json
    assert judged["reference"] == str(run / "reference")
    for name in ("loss", "fpo/kl_rejected", "fpo/d_rejected", "perplexity"):
        assert judged["after"][name] == pytest.approx(trained["after"][name], rel=1e-3), name
        assert judged["before"].get(name, 0) != judged["after"][name]
    assert judged["after"]["entropy"] > 0

    for name in ("distinct_1", "distinct_2", "sample_length"):
        assert judged["after"][name] > 0
    margin = judged["after"]["fpo/kl_rejected"] - judged["after"]["fpo/kl_chosen"]
    assert judged["after"]["fpo/kl_margin"] == pytest.approx(margin)

    prompt = ["--prompt", "Tell me about the red lamp.", "--max-tokens", 8, "--samples", 2]
    model = ["--model", assets().model, *use]
    answers = [fpo("generate", *model, *prompt, "--adapter", run).json for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(answers[0]["completions"]) == 2
    assert answers[0]["prompt"].startswith("<|")
    plain = fpo("generate", *model, *prompt, "--temp", 0, "--ignore-chat-template").json
    assert plain["prompt"] == "Tell me about the red lamp."
    assert plain["completions"][0] == plain["completions"][1]


@pytest.mark.parametrize(
    ("backend", "objective"), [("torch", "tdpo2"), ("mlx", "simpo-kl"), ("torch", "simpo")]
)
def test_objectives_train_without_an_autoencoder(
    backend: str, objective: str, fpo: Fpo, tmp_path: Path
) -> None:
    few = ["--iters", 2, "--batch-size", 4, "--val-pairs", 8, "--learning-rate", 0.01, "--json"]
    options = ["--objective", objective, "--backend", backend, "--output", tmp_path / "run"]
    ran = fpo("train", *model_and_data(), *few, *options)
    assert ran.code == 0, ran.err
    assert (ran.json["loss_first"] == pytest.approx(0.693147, abs=1e-4)) == (objective == "tdpo2")
    assert ran.json["after"]["fpo/kl_chosen"] > 0
    assert (ran.json["constraint_ratio"] is None) == (objective == "simpo")


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_ranked_on_texts_constrain_a_run(
    backend: str, fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    sides = {"--positive": "Thank you very kindly.", "--negative": "Get lost, you fool."}
    for option, text in sides.items():
        (tmp_path / option).write_text(f"{text}\n{text} {text}\n")
    texts = [part for option in sides for part in (option, tmp_path / option)]
    sae, use = world[-2:], ["--backend", backend, "--json"]
    weights = tmp_path / "weights.json"
    model = ["--model", assets().model]
    ran = fpo("sae", "features", *model, *sae, *texts, "--top", 5, "--out", weights, *use)
    assert ran.code == 0, ran.err
    listed = ran.json["features"]
    assert len(listed) == 5
    assert all(a["difference"] >= b["difference"] > 0 for a, b in itertools.pairwise(listed))
    assert set(json.loads(weights.read_text())["weights"]) == {str(f["index"]) for f in listed}

    run = [*world, *FEW, *use, "--output", tmp_path / "run", "--reference", tmp_path / "reference"]
    ran = fpo("train", *run, "--feature-weights", weights)
    assert ran.code == 0, ran.err
    assert ran.json["after"]["fpo/union"] == 5
    assert ran.json["after"]["fpo/d_rejected"] > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_fine_tuning_is_evaluated_against_its_base(
    backend: str, fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    run, use = tmp_path / "run", ["--backend", backend, "--json"]
    full = ["--fine-tune-type", "full", "--learning-rate", 1e-3]
    ran = fpo("train", *world, *FEW, *full, *use, "--output", run)
    assert ran.code == 0, ran.err
    assert "one extra copy of the trained weights" in ran.err
    base = [*world[2:], "--base", assets().model, "--samples", 0, "--beta", 1, "--val-pairs", 8]
    judged = fpo("eval", "--model", run, *base, *use)
    assert judged.code == 0, judged.err
    for name in ("loss", "fpo/kl_rejected", "fpo/d_rejected"):
        expected = ran.json["after"][name]
        assert judged.json["after"][name] == pytest.approx(expected, rel=1e-3), name


def test_adapters_of_different_shapes_are_compared(
    fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    use = [*world, *FEW, "--backend", "torch", "--json"]
    narrow = ["--rank", 3, "--scale", 5, "--target-modules", "q_proj,v_proj", "--num-layers", 3]
    for name, shape in (("a", narrow), ("b", ["--rank", 6, "--seed", 1])):
        assert fpo("train", *use, *shape, "--output", tmp_path / name).code == 0
    few = [*world, "--backend", "torch", "--json", "--val-pairs", 8, "--samples", 0, "--beta", 1]

    def evaluated(*options: object):
        ran = fpo("eval", *few, *options)
        assert ran.code == 0, ran.err
        return ran.json

    a, b = (evaluated("--adapter", tmp_path / name) for name in "ab")
    both = evaluated("--adapter", tmp_path / "a", "--base-adapter", tmp_path / "b")
    back = evaluated("--base-adapter", tmp_path / "b")
    for name in ("logps/chosen", "logps/rejected"):
        assert both["after"][name] == pytest.approx(a["after"][name], rel=1e-4)
        assert both["before"][name] == pytest.approx(b["after"][name], rel=1e-4)
        assert back["after"][name] == pytest.approx(a["before"][name], rel=1e-4)
        assert back["before"][name] == pytest.approx(b["after"][name], rel=1e-4)
    assert both["after"]["fpo/kl_chosen"] != pytest.approx(a["after"]["fpo/kl_chosen"], rel=1e-2)
    assert both["after"]["fpo/d_rejected"] > 0


def test_a_model_alone_and_training_without_an_autoencoder(fpo: Fpo, tmp_path: Path) -> None:
    use = [*model_and_data(), "--backend", "torch", "--json"]
    alone = fpo("eval", *use, "--samples", 0).json
    assert alone["before"] is None
    assert "fpo/d_rejected" not in alone["after"]
    ran = fpo("train", *use, *FEW, "--alpha", 0, "--output", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert "alpha is 0" in ran.json["verdict"][2]


def test_text_for_people(fpo: Fpo, world: list[object], tmp_path: Path) -> None:
    ran = fpo("train", *world, *FEW, "--backend", "torch", "--output", tmp_path / "run")
    assert ran.out.startswith("Learned?")
    assert ran.out.count("\n") <= 6
    assert "training: step 2/2, loss" in ran.err
    assert "step-0 check" in ran.err
    ran = fpo("generate", "--model", assets().model, "-p", "Hello", "--max-tokens", 4)
    assert ran.code == 0
    assert "tokens/s" in ran.err
    assert ran.out.strip()


@pytest.mark.parametrize("backend", BACKENDS)
def test_quickstart(backend: str, fpo: Fpo, tmp_path: Path) -> None:
    output = tmp_path / "quick"
    few = ["--iters", 2, "--batch-size", 4, "--samples", 4, "--max-rows", 24]
    ran = fpo("quickstart", "--backend", backend, "--output", output, *few, "--json")
    assert ran.code == 0, ran.err
    result = ran.json
    assert {"before", "after", "seconds", "loss_first", "loss_last", "calibration"} <= set(result)
    for moment in ("before", "after"):
        assert 0 <= result[moment]["oracle"] <= 1
        assert len(result[moment]["completions"]) == 4
        assert {"entropy", "perplexity", "fpo/kl_rejected", "fpo/d_rejected"} <= set(result[moment])
    assert Path(result["picture"]).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert Path(result["sae"][0]).is_file()
    assert "raw accuracy" in ran.err
    assert {path.name for path in tmp_path.iterdir()} == {"quick"}


def test_the_quickstarts_settings_are_settings_of_train() -> None:
    from fpo.quickstart_settings import QUICKSTART_SETTINGS
    from fpo_core.config.yaml_file import read_yaml

    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(read_yaml(QUICKSTART_SETTINGS)) <= names
