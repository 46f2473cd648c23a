"""Commands of the program on small inputs, what each leaves, and how they run in a child."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.integrity.children import start, wait
from fpo.world import assets
from fpo_core.reference.reader import ReferenceStore
from tests.backends.runs import files_of, log_of

ROWS = 40
TRAIN = (
    *("--iters", "8", "--batch-size", "2", "--save-every", "2", "--steps-per-eval", "4"),
    *("--steps-per-report", "3", "--rank", "2", "--dropout", "0.1", "--val-pairs", "8"),
    *("--alpha", "5", "--beta", "50", "--no-preflight", "--step0-pairs", "4", "--k", "8"),
)
Products = Callable[[Path], dict[str, bytes]]


@dataclass(frozen=True)
class Inputs:
    """What the commands read."""

    folder: Path

    @property
    def model(self) -> tuple[str, ...]:
        """Model, and where tokens are cached."""
        return ("--model", str(assets().model), "--cache", str(self.folder / "cache"))

    def pairs(self, part: int = 0) -> tuple[str, ...]:
        """One of two data sets."""
        return ("--data", str(self.folder / f"pairs-{part}"), "--max-seq-length", "64")

    @property
    def sae(self) -> tuple[str, str]:
        """The autoencoder in our format."""
        return ("--sae", str(self.folder / "sae.safetensors"))

    def make(self) -> None:
        """Write pairs, autoencoder and an adapter."""
        for part in (0, 1):
            folder = self.folder / f"pairs-{part}"
            folder.mkdir(parents=True)
            for name, source in (("train", assets().train), ("valid", assets().valid)):
                count = ROWS if name == "train" else 10
                lines = source.read_text().splitlines()[part * count : (part + 1) * count]
                (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        rows = [json.loads(line) for line in assets().train.read_text().splitlines()[:ROWS]]
        for side in ("chosen", "rejected"):
            texts = [" ".join(json.dumps(row[side]).split()) for row in rows]
            (self.folder / f"{side}.txt").write_text("\n".join(texts) + "\n")
        convert = ["convert", "sae", str(assets().sae), "--out", self.sae[1]]
        run(convert, self.folder / "log")
        output = str(self.folder / "start")
        what = (*self.model, *self.pairs(), *self.sae, "--output", output)
        run(["train", "--backend", "torch", *what, *TRAIN], self.folder / "log")


@dataclass(frozen=True)
class Command:
    """One command, writing into a folder."""

    arguments: Callable[[Inputs, Path], list[str]]
    products: Products
    resumed: bool = False
    """Whether it needs to be told to go on."""

    def line(self, inputs: Inputs, folder: Path) -> list[str]:
        """The arguments for a folder as it is now."""
        arguments = self.arguments(inputs, folder)
        begun = self.resumed and any((folder / "run" / "checkpoints").glob("step-*"))
        return [*arguments, "--resume"] if begun else arguments


def main(arguments: list[str]) -> None:
    """The command line, as if started from a shell."""
    from fpo_cli.main import main as command_line

    sys.argv = ["fpo", *arguments]
    command_line()


def begin(arguments: list[str], log: Path) -> int:
    """The number of a child that runs a command."""
    return start(lambda: main(arguments), log)


def run(arguments: list[str], log: Path) -> None:
    """A command that nobody disturbs; SystemExit with what it said where it fails."""
    if wait(begin(arguments, log), 600):
        raise SystemExit(f"{arguments}: {log.read_text()}")


def of_run(folder: Path) -> dict[str, bytes]:
    """Weights, moments and scores of a run, and its log less the times."""
    output = folder / "run"
    return files_of(output) | {"log": json.dumps(log_of(output)).encode()}


def of_store(folder: Path) -> dict[str, bytes]:
    """The numbers of a store by key, wherever they lie."""
    store = ReferenceStore.open(folder / "store")
    found = {}
    for shard in store.shards:
        for row, key in enumerate(shard["key"]):
            starts = shard["offsets"]
            part = slice(int(starts[2 * row]), int(starts[2 * row + 2]))
            values = (shard["logps"][row], shard["indices"][part], shard["values"][part])
            found[key.tobytes().hex()] = b"".join(value.tobytes() for value in values)
    return found


def of_files(*patterns: str) -> Products:
    """The bytes of files."""

    def products(folder: Path) -> dict[str, bytes]:
        paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    return products


def train(backend: str, *more: str, data: int = 0, store: bool = False) -> Command:
    """`fpo train` on a backend."""

    def arguments(inputs: Inputs, folder: Path) -> list[str]:
        line = ["train", "--backend", backend, *inputs.model, *inputs.pairs(data), *inputs.sae]
        line += ["--reference", str(folder / "store")] if store else []
        return [*line, "--output", str(folder / "run"), *TRAIN, *more]

    return Command(arguments, of_run, resumed=True)


def reference(backend: str, data: int = 0) -> Command:
    """`fpo reference` on a backend."""
    small = ("--rows-per-shard", "8", "--tokens-per-batch", "512")

    def arguments(inputs: Inputs, folder: Path) -> list[str]:
        line = ["reference", "--backend", backend, *inputs.model, *inputs.pairs(data), *inputs.sae]
        return [*line, "--reference", str(folder / "store"), *small]

    return Command(arguments, of_store)


def fuse(backend: str) -> Command:
    """`fpo fuse` on a backend."""

    def arguments(inputs: Inputs, folder: Path) -> list[str]:
        line = ["fuse", "--backend", backend, "--model", str(assets().model), "--adapter"]
        return [*line, str(inputs.folder / "start"), "--out", str(folder / "fused")]

    return Command(arguments, of_files("fused/*.safetensors", "fused/*.json"))


FULL = ("--fine-tune-type", "full", "--learning-rate", "1e-4")
ACCUMULATED = ("--grad-accumulation-steps", "3")
COMMANDS: dict[str, Command] = {
    "train lora, torch": train("torch"),
    "train lora, mlx": train("mlx"),
    "train full, torch": train("torch", *FULL),
    "train full, mlx": train("mlx", *FULL),
    "train accumulating, torch": train("torch", *ACCUMULATED),
    "train accumulating, mlx": train("mlx", *ACCUMULATED),
    "reference, torch": reference("torch"),
    "reference, mlx": reference("mlx"),
    "fuse, torch": fuse("torch"),
    "fuse, mlx": fuse("mlx"),
    "convert sae": Command(
        lambda _, folder: ["convert", "sae", str(assets().sae), "--out", str(folder / "sae")],
        of_files("sae"),
    ),
    "convert adapter": Command(
        lambda inputs, folder: [
            *("convert", "adapter", str(inputs.folder / "start"), "--out", str(folder / "adapter")),
            *("--model", str(assets().model)),
        ],
        of_files("adapter/*"),
    ),
    "token cache": Command(
        lambda inputs, folder: [
            *("data", "inspect", "--model", str(assets().model), "--data", str(assets().pairs)),
            *("--cache", str(folder / "cache")),
        ],
        of_files("cache/pairs/*/train*", "cache/pairs/*/valid*"),
    ),
    "sae features": Command(
        lambda inputs, folder: [
            *("sae", "features", "--backend", "torch", *inputs.model[:2], *inputs.sae),
            *("--positive", str(inputs.folder / "chosen.txt")),
            *("--negative", str(inputs.folder / "rejected.txt")),
            *("--out", str(folder / "weights.safetensors")),
        ],
        of_files("weights.safetensors"),
    ),
}
"""What is killed, and compared with itself undisturbed."""

PAIRS: dict[str, tuple[Command, Command]] = {
    "one output, the same run": (train("torch"), train("torch")),
    "one output, another seed": (train("torch"), train("torch", "--seed", "7")),
    "one output, both backends": (train("torch"), train("mlx")),
    "one store, the same data": (reference("torch"), reference("torch")),
    "one store, other data": (reference("torch"), reference("torch", 1)),
    "one store, train and reference": (train("torch", store=True), reference("torch", 1)),
    "one fused model": (fuse("torch"), fuse("mlx")),
    "one converted file": (COMMANDS["convert sae"], COMMANDS["convert sae"]),
    "one converted adapter": (COMMANDS["convert adapter"], COMMANDS["convert adapter"]),
    "one token cache": (COMMANDS["token cache"], COMMANDS["token cache"]),
}
"""Two commands that write to the same place."""


def hidden(folder: Path) -> list[Path]:
    """Whatever lies about under a hidden name: temporaries, if the command is over."""
    paths = (path for path in folder.rglob(".*") if not path.name.endswith(".lock"))
    return [path for path in paths if not any(p.name.startswith(".") for p in path.parents)]


def emptied(folder: Path) -> Path:
    """A new folder in the place of one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
