"""What commands must not destroy, who may write where, and what reaches the terminal."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fpo.world import assets
from fpo_core.io.lock import LOCK_FILE, locked

from .conftest import Fpo, Ran

FEW = [
    "--backend",
    "torch",
    "--greedy-answers",
    0,
    "--iters",
    2,
    "--batch-size",
    2,
    "--rank",
    1,
    "--beta",
    1,
]
FEW += ["--val-pairs", 4, "--no-preflight", "--objective", "dpo-norm"]
ESC, RLO, ZERO = "\x1b", "\u202e", "\u200b"


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refused(ran: Ran, *words: str) -> None:
    lines = ran.err.strip().splitlines()
    assert ran.code == 2, ran.err
    assert lines[-1].startswith("fpo: ")
    assert "Traceback" not in ran.err
    assert all(word in lines[-1] for word in words), lines[-1]


def data() -> list[Any]:
    return ["--data", assets().pairs, "--max-rows", 8, "--max-seq-length", 64]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(assets().model, tmp_path / "model"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, made once."""
    import fpo as api

    output = tmp_path_factory.mktemp("trained") / "run"
    api.train(
        model=str(assets().model),
        data=str(assets().pairs),
        max_rows=8,
        max_seq_length=64,
        objective="dpo-norm",
        backend="torch",
        iters=2,
        batch_size=2,
        rank=1,
        beta=1.0,
        val_pairs=4,
        preflight=False,
        output=str(output),
    )
    return output


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_model_is_not_trained_over(kind: str, fpo: Fpo, model: Path) -> None:
    before = content(model)
    ran = fpo("train", "--model", model, *data(), *FEW, "--fine-tune-type", kind, "--output", model)
    refused(ran, f"model is {model}", "choose another output")
    assert content(model) == before


def test_a_link_to_the_model_is_not_trained_over(fpo: Fpo, model: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(model)
    before = content(model)
    ran = fpo("train", "--model", model, *data(), *FEW, "--output", tmp_path / "link")
    refused(ran, "choose another output")
    assert content(model) == before


@pytest.mark.parametrize("place", ["run", "run/best"])
def test_the_start_is_not_trained_over(place: str, fpo: Fpo, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    before = content(run)
    options = ["--model", assets().model, *data(), *FEW[:6], *FEW[8:], "--output", run]
    refused(fpo("train", *options, "--adapter", tmp_path / place), "choose another output")
    assert content(run) == before


@pytest.mark.parametrize(
    "name", ["best/thesis.txt", "adapter_config.json", "model.safetensors", "log.jsonl"]
)
def test_files_of_others_stay(name: str, fpo: Fpo, tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / name).parent.mkdir(parents=True)
    (output / name).write_text("years of work")
    ran = fpo("train", "--model", assets().model, *data(), *FEW, "--output", output)
    refused(ran, "was not written by this program")
    assert content(output) == {name: b"years of work"}


def test_a_linked_folder_of_checkpoints_is_not_followed(fpo: Fpo, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoints").symlink_to(elsewhere)
    ran = fpo("train", "--model", assets().model, *data(), *FEW, "--output", tmp_path / "out")
    refused(ran, "is a link, which is not followed")


def test_links_are_replaced_and_the_users_own_files_stay(fpo: Fpo, tmp_path: Path) -> None:
    output, target = tmp_path / "out", tmp_path / "target"
    output.mkdir()
    target.write_text("theirs - fpo-mlx\n- fpo-mlx\n")
    (output / "curves.png").symlink_to(target)
    (output / "README.md").symlink_to(target)
    (output / ".notes.tmp").write_text("mine")
    (output / "notes.txt").write_text("mine")
    before = target.read_bytes()
    ran = fpo("train", "--model", assets().model, *data(), *FEW, "--output", output)
    assert ran.code == 0, ran.err
    assert target.read_bytes() == before
    assert not (output / "curves.png").is_symlink()
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (output / ".notes.tmp").read_text() == (output / "notes.txt").read_text() == "mine"
    assert not list(output.rglob(LOCK_FILE))


def test_a_conversion_writes_over_its_own_files_alone(fpo: Fpo, sae: Path, tmp_path: Path) -> None:
    out = tmp_path / "sae.safetensors"
    shutil.copy(sae, out)
    assert fpo("convert", "sae", assets().sae, "--out", out).code == 0
    out.write_bytes((assets().sae / "sae_weights.safetensors").read_bytes())
    refused(fpo("convert", "sae", assets().sae, "--out", out), "not written by this program")
    source = Path(shutil.copytree(assets().sae, tmp_path / "source"))
    over = source / "sae_weights.safetensors"
    before = over.read_bytes()
    refused(fpo("convert", "sae", source, "--out", over), "not written by this program")
    assert over.read_bytes() == before


def test_a_store_goes_into_no_folder_of_others(fpo: Fpo, model: Path) -> None:
    before = content(model)
    ran = fpo("reference", "--model", assets().model, *data(), "--reference", model)
    refused(ran, "was not written by this program", "choose another reference")
    assert content(model) == before


def test_a_folder_where_a_run_writes_is_refused_with_its_process(fpo: Fpo, tmp_path: Path) -> None:
    import os

    output = tmp_path / "out"
    options = ["--model", assets().model, *data(), *FEW, "--output", output]
    with locked(output):
        refused(fpo("train", *options), f"process {os.getpid()} on", "wait for it to end")
        refused(fpo("quickstart", "--output", output), f"process {os.getpid()} on")
    assert not output.exists()


HOSTILE = f"{ESC}[2J{ESC}]0;owned\x07{RLO}txt{ZERO}\x9b31m"


@pytest.mark.parametrize("as_json", [False, True])
def test_text_of_data_reaches_no_terminal_raw(as_json: bool, fpo: Fpo, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": HOSTILE + "a", "chosen": f"yes {HOSTILE}", "rejected": "no", HOSTILE: 1}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    more = ["--json"] if as_json else []
    ran = fpo("data", "inspect", "--model", assets().model, "--data", path, *more)
    assert ran.code == 0, ran.err
    both = ran.out + ran.err
    assert not {ESC, RLO, ZERO, "\x07", "\x9b"} & {*both}
    if as_json:
        assert json.loads(ran.out)


def test_names_in_errors_reach_no_terminal_raw(fpo: Fpo, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({HOSTILE: "a", "rejected": "b"}) + "\n")
    ran = fpo("data", "inspect", "--model", assets().model, "--data", path)
    refused(ran)
    assert not {ESC, RLO, ZERO, "\x07", "\x9b"} & {*ran.err}


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize("command", ["generate", "eval"])
def test_adapters_that_are_not_finite_are_refused(
    number: str, command: str, fpo: Fpo, trained: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    run = Path(shutil.copytree(trained, tmp_path / "run"))
    config = json.loads((run / "adapter_config.json").read_text())
    del config["fpo_integrity"]
    (run / "adapter_config.json").write_text(json.dumps(config))
    arrays = load_file(run / "adapter_model.safetensors")
    next(iter(arrays.values())).flat[0] = float(number)
    save_file(arrays, run / "adapter_model.safetensors")
    more = ["--prompt", "hello"] if command == "generate" else [*data(), "--objective", "dpo-norm"]
    refused(fpo(command, "--model", assets().model, "--adapter", run, *more), "not finite")


def test_a_damaged_adapter_is_refused_by_name(fpo: Fpo, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    path = run / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    ran = fpo("generate", "--model", assets().model, "--adapter", run, "--prompt", "hello")
    refused(ran, "adapter_model.safetensors is not what was written")


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "garbage", "deep index"])
@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_odd_weights_are_one_line(kind: str, backend: str, fpo: Fpo, model: Path) -> None:
    import os

    path = model / "model.safetensors"
    if kind == "deep index":
        (model / "model.safetensors.index.json").write_text("[" * 100_000)
    else:
        path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "garbage":
        path.write_bytes(b"\x10\0\0\0\0\0\0\0{" + b"[" * 40)
    refused(fpo("generate", "--backend", backend, "--model", model, "--prompt", "hello"))


@pytest.mark.parametrize("text", ["[" * 5000, "&a [*a]", "a: [", "{" * 5000, "- 1"])
def test_odd_settings_files_are_one_line(text: str, fpo: Fpo, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    refused(fpo("train", "-c", tmp_path / "c.yaml"))


@pytest.mark.parametrize("text", ['{"a":' * 100_000, "[" * 5000])
def test_deep_rows_are_one_line(text: str, fpo: Fpo, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text + "\n")
    refused(fpo("data", "inspect", "--model", assets().model, "--data", path), "line 1")


def test_a_rate_that_overflows_is_one_line(fpo: Fpo, tmp_path: Path) -> None:
    options = ["--model", assets().model, *data(), *FEW, "--output", tmp_path / "out"]
    ran = fpo("train", *options, "--learning-rate", "1e38", "--nonfinite-limit", 1)
    assert "Traceback" not in ran.err
    assert ran.code in (0, 2)


def test_an_interruption_while_modules_load_is_one_line(monkeypatch, capsys) -> None:
    import builtins

    from fpo_cli.__main__ import start

    real = builtins.__import__

    def interrupted(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "fpo_cli.main":
            raise KeyboardInterrupt
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as ended:
        start()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "fpo: interrupted\n"


@pytest.mark.parametrize("strict", [False, True])
def test_pairs_beyond_the_positions_are_counted(strict: bool, fpo: Fpo, model: Path) -> None:
    path = model / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"max_position_embeddings": 40}))
    more = ["--strict"] if strict else []
    ran = fpo("reference", "--model", model, *data(), "--backend", "torch", *more)
    assert "pairs are longer than the 40 positions" in ran.err
    assert ran.code == (2 if strict else 0)


def test_doctor_shows_and_frees_what_killed_processes_left(
    fpo: Fpo, tmp_path: Path, monkeypatch
) -> None:
    import dataclasses

    from fpo_core.io.processes import Process

    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache" / "pairs"
    cache.mkdir(parents=True)
    dead = cache / f".rows.{dataclasses.replace(Process.this(), started=1).tag}.tmp"
    dead.write_bytes(bytes(1 << 20))
    shown = fpo("doctor", "--cache", tmp_path / "cache", "--backend", "torch")
    assert "killed processes left 1.0 MiB" in shown.out
    assert dead.exists()
    found = fpo("doctor", "--cache", tmp_path / "cache", "--backend", "torch", "--clean", "--json")
    assert found.json["leftovers"] == {"paths": [str(dead)], "bytes": 1 << 20, "removed": True}
    assert not dead.exists()
