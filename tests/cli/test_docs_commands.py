"""Every command in README, docs and examples runs as written, in its document's order.

The words in capitals, the files and the hub's names stand for tiny ones (`STAND_INS`, `hub_tree`),
and options that only make a command cheap are appended (`CHEAP`).
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fpo_cli.main  # noqa: F401  it fills COMMANDS
from fpo.world import assets
from fpo_cli.console.command import COMMANDS

from . import hub_tree
from .conftest import Fpo, environment
from .documented import ROOT, Documented, commands, commands_in, documents

SOURCE = f"{hub_tree.GEMMA_SCOPE}:{hub_tree.GEMMA_SAE}"
STAND_INS = {
    "MODEL": "gemma-3-270m-it",  # a folder; `fpo sae list` knows the name
    "SOURCE": SOURCE,
    "DATA": "pairs.jsonl",
    "PAIRS": "pairs.jsonl",
    "FILE": "made.safetensors",
    "DIR": "sae-lens",
    "DIR2": "sae-lens-2",
    "…": "--model gemma-3-270m-it --data pairs.jsonl --sae made.safetensors --output {program}",
}
"""What stands for a word of the documents; every other word is taken as it is. {program}: what
the command begins with."""
CHEAP = {
    "backend": "torch",
    "iters": 2,
    "learning_rate": 0.01,
    "batch_size": 2,
    "grad_accumulation_steps": 1,
    "max_seq_length": 64,
    "valid_fraction": 0.25,
    "val_pairs": 2,
    "eval_pairs": 2,
    "samples": 2,
    "max_tokens": 4,
    "greedy_answers": 0,
    "seeds": 0,
    "tokens": 2000,
    "d_sae": 64,
    "preflight": False,
}
"""Appended to each command that has the option; a conversion takes none."""
NOT_RUN = {
    "make test": "runs the tests, this one among them",
    "pip install fpo-mlx": "needs a package registry",
    "pip install 'fpo-mlx[torch]'": "needs a package registry",
    "fpo doctor --self-test": "in test_json.py",
    "fpo chat --model MODEL --adapter run": "in test_chat.py",
    "fpo serve --model MODEL --adapter run": "in test_chat.py",
    "fpo report run --shown-pairs 500": "in tests/report",
    "fpo train --model MODEL --data own.jsonl --objective dpo --output next": "in tests/judges",
    "fpo value train --model MODEL --prompts prompts.jsonl --judge rules.yaml --output value": (
        "in test_values.py"
    ),
    "fpo generate --model MODEL --prompt Hello --value value --value-beta 3": "in test_values.py",
    "fpo generate --model MODEL --prompt Hello --value value --value other --value-beta 3 "
    "--value-beta -1": "in test_values.py",
    "fpo eval --model MODEL --data DATA --value value --judge rules.yaml": "in test_values.py",
    "torchrun --nproc-per-node 8 -m fpo_cli train --fine-tune-type full --shard --grad-checkpoint "
    "'…'": "in tests/backends/test_sharded.py",
    "python examples/smollm2/get.py smollm2": "downloads; in tests/examples/test_smollm2.py",
    "python examples/smollm2/run.py": "in tests/examples/test_smollm2.py",
    "python benchmarks/compare_families.py --write": "in tests/backends/test_family_layouts.py",
    "python examples/smollm2/build_sae.py --out smollm2.safetensors": "trains for minutes",
    "python -m benchmarks.evidence report": "in tests/benchmarks/test_evidence.py",
    "python -m benchmarks.evidence test --on smollm2": "trains for hours",
    "python -m benchmarks.bench_zeroth_order": "trains for minutes",
    "sh examples/world/build.sh": "trains for minutes",
    "pip install --no-deps -r federated.txt": "needs a package registry",
    "python -m benchmarks.federated_processes": "runs for twenty minutes",
    "python -m venv federated": "needs a package registry after it",
    "fpo federate --model MODEL --data pairs.jsonl --objective dpo-norm --output fed --clients 8 "
    "--client-share 0.5 --rounds 10 --local-iters 20 --partition dirichlet:0.5 --by topic "
    "--valid-fraction 0.1": "in tests/api/test_federation.py",
}
"""Commands that are not run here, and why."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hub's cache in `cache`, and what the repositories in it were made of."""
    folder = tmp_path_factory.mktemp("made")
    hub_tree.lay_out(folder / "cache", folder)
    return folder


@pytest.fixture
def reader(fpo: Fpo, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fpo:
    """`fpo` in a reader's folder: a model, pairs, an autoencoder, settings and the examples."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(made / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "gemma", STAND_INS["MODEL"])
    lines = (assets().pairs / "train.jsonl").read_text().splitlines(keepends=True)
    Path("pairs.jsonl").write_text("".join(lines[:8]))
    Path("prompts.jsonl").write_text('{"prompt": "Tell me about the red lamp."}\n')
    Path("rules.yaml").write_text("- words: [1, null]\n")
    Path("examples").symlink_to(ROOT / "examples")
    assert fpo("convert", "sae", SOURCE, "--out", STAND_INS["FILE"]).code == 0
    few = {"model": STAND_INS["MODEL"], "data": "pairs.jsonl", "sae": STAND_INS["FILE"]}
    few |= {k: CHEAP[k] for k in ("iters", "learning_rate", "batch_size", "val_pairs")}
    Path("run.yaml").write_text(yaml.safe_dump(few))
    return fpo


def cheap(command: Documented, **more: object) -> list[object]:
    """What `fpo` gets: the command with its stand-ins, and then what makes it cheap."""
    words = command.of_fpo
    assert words is not None
    path = " ".join(("fpo", *words))
    known = max(
        (c for c in COMMANDS if f"{path} ".startswith(f"{c.path} ")), key=lambda c: len(c.path)
    )
    values = {} if words[0] == "convert" else CHEAP | more
    if "--dry-run" in words:
        values.pop("preflight", None)
    options: list[object] = []
    for option in known.options:
        if option.name in values:
            value = values[option.name]
            options += [f"--no-{option.name}"] if value is False else [option.spellings[0], value]
    program = command.words[0]
    stood = (STAND_INS[w].format(program=program).split() if w in STAND_INS else [w] for w in words)
    return [part for parts in stood for part in parts] + options


def run_other(command: Documented) -> None:
    """Make tells what it would do; a script works, and on a few pairs."""
    words, few = list(command.words), ["--train", "4", "--valid", "2"]
    if words[0] == "make":
        words.append("--dry-run")
    else:
        assert words[0] == "python", f"{command.document}: nothing runs {command.text}"
        words = [sys.executable, *words[1:], *few]
    where = ROOT if words[0] == "make" else None
    done = subprocess.run(
        words, cwd=where, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command.document}: {command.text}: {done.stderr}"


@pytest.mark.parametrize("document", [name for name in documents() if commands(name)])
def test_the_commands_of_a_document_run_in_order(reader: Fpo, document: str) -> None:
    for command in commands(document):
        if command.text in NOT_RUN:
            continue
        if command.of_fpo is None:
            run_other(command)
            continue
        ran = reader(*cheap(command))
        assert ran.code == 0, f"{document}: {command.text}: {ran.err}"


def test_the_readme_trains_a_model_of_the_hub_on_mlx_too(reader: Fpo) -> None:
    written = commands("README.md")
    train = next(i for i, command in enumerate(written) if hub_tree.GEMMA in command.words)
    for command in written[train - 1 : train + 1]:
        ran = reader(*cheap(command, backend="mlx"))
        assert ran.code == 0, ran.err


def test_the_source_is_one_that_is_listed(reader: Fpo) -> None:
    listed = reader("sae", "list", "--model", STAND_INS["MODEL"], "--json").json["saes"]
    assert [sae["source"] for sae in listed if sae["recommended"]] == [SOURCE]


def test_what_is_not_run_is_still_documented() -> None:
    written = {command.text for name in documents() for command in commands(name)}
    assert set(NOT_RUN) <= written


def test_commands_are_found_wherever_they_stand() -> None:
    text = (
        "Say `fpo train` or `fpo a --b\nc`.\n\n```sh\nfpo d --e 'f g'  # h\n"
        "fpo i \\\n  --j\nk\n```\n\nthen\n\n    A=b torchrun -n 2 -m fpo_cli l\n    z = 3\n\n"
        "`make m=1`\n"
    )
    found = commands_in(text)
    assert found == [
        ("fpo", "a", "--b", "c"),
        ("fpo", "d", "--e", "f g"),
        ("fpo", "i", "--j"),
        ("torchrun", "-n", "2", "-m", "fpo_cli", "l"),
        ("make", "m=1"),
    ]
    assert Documented("", found[3]).of_fpo == ("l",)
    assert Documented("", found[4]).of_fpo is None
    assert commands_in("# Try: fpo n -c o\nkey: 1  # of `fpo n`\n") == [("fpo", "n", "-c", "o")]


FOREIGN = {"--nproc-per-node": "torchrun", "--hostfile": "mlx.launch", "--adapter-path": "mlx-lm"}
FOREIGN |= dict.fromkeys(("--attribute", "--prefer", "--match"), "build_pairs.py")
FOREIGN |= dict.fromkeys(("--on", "--arms"), "benchmarks.evidence")
FOREIGN["--readme"] = "benchmarks.bench_smollm2"
_FLOWER = ("ssl-ca-certfile", "ssl-certfile", "ssl-keyfile", "enable-supernode-auth", "stream")
_FLOWER += ("root-certificates", "superlink", "auth-supernode-private-key", "node-config")
_FLOWER += ("disable-runtime-dependency-installation",)
FOREIGN |= dict.fromkeys((f"--{name}" for name in (*_FLOWER, "run-config")), "Flower")
FOREIGN |= dict.fromkeys(("--no-build-isolation", "--no-deps"), "pip")
FOREIGN |= dict.fromkeys(
    ("--cpu", "--multi_gpu", "--num_machines", "--num_processes"), "Accelerate"
)
FOREIGN |= {"--nnodes": "torchrun"} | dict.fromkeys(
    ("--rdzv-backend", "--rdzv-endpoint", "--rdzv-id"), "torchrun"
)
FOREIGN |= dict.fromkeys(
    ("--cpus-per-task", "--gpus-per-node", "--nodes", "--ntasks-per-node", "--signal"), "SLURM"
)
FOREIGN |= {"--lr": "mlx-lm", "--output_dir": "TRL", "--write": "compare_families.py"}
"""Options of other programs that the documents name."""


@pytest.mark.parametrize("document", documents())
def test_every_option_that_is_named_is_one(document: str) -> None:
    known = {text for c in COMMANDS for option in c.options for text in option.spellings}
    known = {text for spelling in known for text in spelling.split("/")} | {"--help", "--json"}
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", (ROOT / document).read_text()))
    assert named - known - set(FOREIGN) == set()
