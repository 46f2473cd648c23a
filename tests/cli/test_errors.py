"""A user's mistake is one line on stderr and exit code 2, and nothing is written."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fpo.world import assets

from .conftest import Fpo, Ran, model_and_data


def refused(ran: Ran, *words: str) -> None:
    assert ran.code == 2, ran.err
    assert ran.out == ""
    said = [line for line in ran.err.splitlines() if not line.startswith("loading ")]
    assert len(said) == 1, ran.err
    assert said[0].startswith("fpo: ")
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err, ran.err


def jsonl(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


MISTAKES: dict[str, tuple[Callable[[Path], list[object]], tuple[str, ...]]] = {
    "missing file": (lambda t: ["--data", t / "no.jsonl"], ("no.jsonl",)),
    "wrong column": (
        lambda t: ["--data", jsonl(t / "a.jsonl", {"prompt": "p", "good": "g", "bad": "b"})],
        ("a.jsonl", "chosen"),
    ),
    "empty data set": (lambda t: ["--data", jsonl(t / "e.jsonl")], ("e.jsonl", "empty")),
    "not JSON": (
        lambda t: ["--data", (t / "n.jsonl", (t / "n.jsonl").write_text("{"))[0]],
        ("n.jsonl", "JSON"),
    ),
    "missing autoencoder": (lambda t: ["--sae", t / "no.safetensors"], ("no.safetensors",)),
    "autoencoder not converted": (
        lambda t: ["--sae", assets().sae / "sae_weights.safetensors"],
        ("convert_sae",),
    ),
    "unknown hook": (lambda t: ["--hook", "layer.two"], ("layer.two", "set hook")),
    "hook beyond the model": (
        lambda t: ["--hook", "blocks.40.hook_resid_post"],
        ("blocks.40", "4 layers"),
    ),
    "hook under what is trained": (
        lambda t: ["--num-layers", 1],
        ("lies before the first trained layer",),
    ),
    "too many layers": (lambda t: ["--num-layers", 99], ("num_layers is 99",)),
    "no such module": (lambda t: ["--target-modules", "w_proj"], ("w_proj",)),
    "missing model": (lambda t: ["--model", t / "none"], ("none",)),
    "model without weights": (lambda t: ["--model", t], ("config.json",)),
    "missing adapter": (lambda t: ["--adapter", t / "none"], ("adapter",)),
    "adapter and full": (
        lambda t: ["--adapter", t, "--fine-tune-type", "full"],
        ("adapter", "full"),
    ),
    "missing texts": (lambda t: ["--text", t / "no.txt"], ("no.txt",)),
    "no such device": (lambda t: ["--device", "mps"], ("mps", "device")),
    "output is a file": (
        lambda t: ["--output", jsonl(t / "file", {"a": 1})],
        ("expected a folder",),
    ),
    "output under a file": (
        lambda t: ["--output", jsonl(t / "file", {"a": 1}) / "run"],
        ("file is a file",),
    ),
    "contradiction": (lambda t: ["--epochs", 1, "--iters", 5], ("epochs and iters",)),
    "a bound on what is not held out": (
        lambda t: ["--data", assets().pairs / "train.jsonl", "--max-kl", 1],
        ("max_kl is 1, but no pairs are held out",),
    ),
    "an empty shell variable": (lambda t: ["--output", ""], ("output is empty, expected text",)),
    "a seed beyond all frameworks": (lambda t: ["--seed", 2**64], ("seed is", "at most")),
    "out of bounds": (lambda t: ["--beta", 0], ("beta is 0.0, expected more than 0",)),
    "not a number": (lambda t: ["--iters", "many"], ("--iters",)),
    "not a choice": (lambda t: ["--backend", "jax"], ("--backend", "jax")),
    "unknown option": (lambda t: ["--learning-rat", 1], ("--learning-rat",)),
    "missing configuration": (lambda t: ["-c", t / "no.yaml"], ("no.yaml",)),
    "unknown key": (
        lambda t: ["-c", (t / "c.yaml", (t / "c.yaml").write_text("alpah: 1"))[0]],
        ("c.yaml", "alpah", "'alpha'"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    mistake: str, fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    make, words = MISTAKES[mistake]
    output = tmp_path / "out"
    options = ["train", *world, "--output", output, "--backend", "torch", *make(tmp_path)]
    before = sorted(tmp_path.rglob("*"))
    refused(fpo(*options, "--json"), *words)
    assert not output.exists()
    assert sorted(tmp_path.rglob("*")) == before


def test_the_quickstart_refuses_a_file_for_its_folder(fpo: Fpo, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "file", {"a": 1})
    refused(fpo("quickstart", "--output", file), "file is a file")


def test_no_command_shows_the_help_and_fails(fpo: Fpo) -> None:
    ran = fpo()
    assert (ran.code, ran.err) == (2, "")
    assert "quickstart" in ran.out


def test_a_wrong_width_is_refused(fpo: Fpo, tmp_path: Path) -> None:
    options = [*model_and_data(), "--output", tmp_path / "out", "--backend", "torch"]
    narrow = narrow_sae(tmp_path / "narrow")
    refused(fpo("convert", "sae", narrow, "--out", tmp_path / "n.safetensors", "--k", 0), "k is 0")
    assert fpo("convert", "sae", narrow, "--out", tmp_path / "n.safetensors").code == 0
    refused(fpo("train", *options, "--sae", tmp_path / "n.safetensors"), "d_in 64", "128")
    assert not (tmp_path / "out").exists()


def narrow_sae(folder: Path) -> Path:
    """The world's autoencoder with half of its inputs."""
    from safetensors.numpy import load_file, save_file

    folder.mkdir()
    weights = load_file(assets().sae / "sae_weights.safetensors")
    halved = {
        "W_enc": weights["W_enc"][:64].copy(),
        "W_dec": weights["W_dec"][:, :64].copy(),
        "b_dec": weights["b_dec"][:64].copy(),
    }
    save_file(weights | halved, folder / "sae_weights.safetensors")
    settings = json.loads((assets().sae / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(settings | {"d_in": 64}))
    return folder


@pytest.mark.parametrize("backend", ["mlx", "torch"])
@pytest.mark.parametrize(
    "command", ["quickstart", "train", "data inspect", "convert sae", "doctor", "sae info"]
)
def test_an_unavailable_backend_is_refused_everywhere(
    backend: str,
    command: str,
    fpo: Fpo,
    world: list[object],
    sae: Path,
    tmp_path: Path,
    monkeypatch,
) -> None:
    real = importlib.util.find_spec
    gone = {"mlx", "mlx_lm"} if backend == "mlx" else {"torch", "peft"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in gone else real(name, *a)
    )
    options = {
        "quickstart": ["--output", tmp_path / "out"],
        "train": [*world, "--output", tmp_path / "out"],
        "data inspect": model_and_data(),
        "convert sae": [assets().sae, "--out", tmp_path / "out"],
        "doctor": [],
        "sae info": [sae],
    }[command]
    ran = fpo(*command.split(), *options, "--backend", backend)
    refused(ran, f"backend {backend} needs", f"pip install 'fpo-mlx[{backend}]'")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train"], ("is not set: give --",)),
        (["convert", "sae"], ("SOURCE is missing",)),
        (["sae", "info"], ("FILE is missing",)),
        (["sae", "check"], ("SAE is missing",)),
        (["sae", "info", "no.safetensors"], ("no.safetensors",)),
        (["generate"], ("model is not set",)),
        (["nonsense"], ("nonsense", "(see fpo --help)")),
        (["data", "nonsense"], ("nonsense",)),
        (["eval", "--model", "m", "--data", "d", "--adapter", "a", "--base", "b"], ("adapter",)),
        (["compare", "--output", "c", "--seeds", "0,1,0"], ("seeds names one twice",)),
        (["compare", "--output", "c", "--objectives", "dpo,dpo"], ("objectives names one twice",)),
        (
            ["generate", "--model", assets().model, "--prompt", "caf\udce9"],
            ("prompt: the text is not valid Unicode",),
        ),
    ],
)
def test_mistakes_of_other_commands(args: list[object], words: tuple[str, ...], fpo: Fpo) -> None:
    refused(fpo(*args), *words)


def test_what_cannot_be_exported(fpo: Fpo, sae: Path, tmp_path: Path) -> None:
    half, out = tmp_path / "half.safetensors", tmp_path / "out"
    assert fpo("convert", "sae", assets().sae, "--out", half, "--encoder-only").code == 0
    export = ["--to", "sae-lens", "--out", out]
    refused(fpo("convert", "sae", half, *export), "half.safetensors", "encoder_only")
    refused(fpo("convert", "sae", assets().sae, *export), "convert_sae")
    refused(fpo("convert", "sae", sae, *export, "--dtype", "bfloat16"), "dtype is set", "sae-lens")
    refused(fpo("convert", "sae", sae, "--to", "sae-lens", "--out", tmp_path), "empty folder")
    refused(fpo("convert", "sae", sae, "--to", "pickle", "--out", out), "pickle", "sae-lens")
    assert list(tmp_path.iterdir()) == [half]


def test_what_cannot_be_checked(fpo: Fpo, sae: Path, tmp_path: Path) -> None:
    half, narrow = tmp_path / "half.safetensors", tmp_path / "narrow.safetensors"
    assert fpo("convert", "sae", assets().sae, "--out", half, "--encoder-only").code == 0
    assert fpo("convert", "sae", narrow_sae(tmp_path / "narrow"), "--out", narrow).code == 0
    where = ["--model", assets().model, "--data", assets().pairs]
    refused(fpo("sae", "check", half, *where), "half.safetensors", "encoder_only")
    refused(fpo("sae", "check", narrow, *where), "d_in 64", "128")
    refused(fpo("sae", "check", assets().sae, *where), "is a folder", "convert_sae")
    refused(fpo("sae", "check", sae, *where[:2], "--data", tmp_path / "no.jsonl"), "no.jsonl")
    refused(fpo("sae", "check", sae, *where, "--rows", 0), "rows is 0")
    refused(fpo("sae", "check", sae, "--data", assets().pairs), "model is not set")


@pytest.mark.parametrize("command", [["sae", "info"], ["train"]])
def test_a_changed_payload_is_caught(
    command: list[str], fpo: Fpo, sae: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.safetensors"
    content = bytearray(sae.read_bytes())
    content[-5] ^= 1
    changed.write_bytes(content)
    options = [changed, "--verify"]
    if command == ["train"]:
        options = [*model_and_data(), "--sae", changed, "--output", tmp_path / "run"]
    refused(fpo(*command, *options), "changed.safetensors", "weights that were changed")


def test_a_store_made_from_something_else_is_refused_with_what_differs(
    fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    store = ["--reference", tmp_path / "store", "--backend", "torch"]
    assert fpo("reference", *world, "--hook", "blocks.1.hook_resid_post", *store).code == 0
    ran = fpo("train", *world, "--output", tmp_path / "out", *store)
    refused(ran, "hook: the store has blocks.1.hook_resid_post, this run has blocks.2")
    assert not (tmp_path / "out").exists()


def test_an_interruption_is_one_line_and_130(fpo: Fpo, monkeypatch) -> None:
    from fpo import installation

    def interrupt(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(installation, "cache_root", interrupt)
    ran = fpo("doctor")
    assert (ran.code, ran.err.strip()) == (130, "fpo: interrupted")
