"""Every published autoencoder by its name, and each format's formula beside sae-lens' own.

    pip install sae-lens==6.54.12 torch safetensors pyyaml ml-dtypes     # in a venv of its own
    PYTHONPATH=.:convert VENV/bin/python benchmarks/compare_saelens.py [--every 10]

Tiny checkpoints in the exact layout of every release stand on a pretended hub. Each of the table's
names is converted; sae-lens' own `SAE.from_pretrained` loads one in --every of each release, the
first and the last in any case, and both encode and decode the same inputs. What TransformerLens
centred is given to sae-lens centred. Errors are relative to the largest value.

Bars: at least 13,850 of 13,857 names convert without sae-lens, no formula is off by 1e-5, and the
rest is refused by name.
"""

import argparse
import fnmatch
import json
import os
import platform
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "convert")]
OUT = ROOT / "benchmarks" / "results" / "published.json"
DOCS = ROOT / "docs" / "sae_format.md"
BEGIN, END = "<!-- published: begin -->\n", "<!-- published: end -->\n"
TOKENS = 32


@dataclass
class Tally:
    """What came of one loader's releases."""

    releases: set[str] = field(default_factory=set)
    autoencoders: int = 0
    converted: int = 0
    compared: int = 0
    encode_error: float = 0.0
    decode_error: float = 0.0
    fvu_error: float = 0.0
    flips: int = 0
    decoders: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def main() -> None:
    """Convert, compare, write the results and the documentation's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as work:
        tallies = compare_releases(Path(work), args.every)
        architectures = compare_folders(Path(work) / "folders")
    result = {
        "sae_lens": version("sae-lens"),
        "torch": version("torch"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "loaders": {
            name: asdict(tally) | {"releases": len(tally.releases)}
            for name, tally in sorted(tallies.items())
        },
        "architectures": architectures,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    write_table(result)
    print(json.dumps(result, indent=1))


def compare_releases(root: Path, every: int) -> dict[str, Tally]:
    """Convert every name of the table; compare a part of them with sae-lens."""
    from fpo_convert.releases import all_releases
    from tests.convert.layouts import write_all

    hub = root / "hub"
    write_all(hub)
    pretend_hub(hub, root / "view")
    tallies: dict[str, Tally] = defaultdict(Tally)
    table = all_releases()
    for number, release in enumerate(table):
        tally = tallies[release.loader]
        tally.autoencoders += 1
        tally.releases.add(release.release)
        sae = converted(release.name, root / "sae.safetensors", tally)
        last = number + 1 == len(table) or table[number + 1].release != release.release
        first = number == 0 or table[number - 1].release != release.release
        if sae is not None and (first or last or number % every == 0):
            theirs = load_theirs(release.release, release.id)
            if "embedding" in release.path:
                unscaled_bias(theirs)
            compare(sae, theirs, tally)
    return dict(tallies)


def converted(name: str, out: Path, tally: Tally) -> Any:
    """The autoencoder of a name, or None where it is refused."""
    from fpo_convert.sae import convert_sae
    from fpo_core.errors import SaeError
    from fpo_core.sae.sae import load_sae

    try:
        convert_sae(name, out)
    except SaeError as error:
        tally.refused[name] = str(error)
        return None
    tally.converted += 1
    return load_sae(out)


def compare_folders(root: Path) -> dict[str, dict[str, Any]]:
    """SAELens folders of every architecture and normalisation, loaded from disk by both."""
    from sae_lens import SAE

    from tests.convert.layouts import folders

    found: dict[str, dict[str, Any]] = {}
    for name, folder in folders(root):
        tally = Tally()
        sae = converted(str(folder), root / "sae.safetensors", tally)
        if sae is not None:
            compare(sae, SAE.load_from_disk(folder), tally)
        found[name] = {k: v for k, v in asdict(tally).items() if k != "releases"}
    return found


def compare(ours: Any, theirs: Any, tally: Tally) -> None:
    """Encode and decode the same inputs by both."""
    import torch

    from fpo_core.arrays import numpy_ops

    rng = np.random.default_rng(tally.compared)
    x = (rng.normal(size=(TOKENS, ours.d_in)) * 2 + 0.7).astype(np.float32)
    mean = x.mean(-1, keepdims=True) if ours.centred else 0
    given = torch.from_numpy(np.asarray(x - mean, np.float32))
    if theirs.cfg.reshape_activations == "hook_z":
        given = given.reshape(TOKENS, 2, -1)
    with torch.no_grad():
        features = theirs.encode(given)
        expected = features.detach().numpy()
        back = theirs.decode(features).detach().numpy().reshape(TOKENS, -1)
    found = ours.encode(numpy_ops, x)
    tally.compared += 1
    tally.encode_error = max(tally.encode_error, relative(found, expected))
    tally.flips += int(((found != 0) != (expected != 0)).sum())
    if not ours.has_decoder:
        return
    tally.decoders += 1
    expected = back + mean
    found = ours.decode(numpy_ops, found, x)
    tally.decode_error = max(tally.decode_error, relative(found, expected))
    gap = abs(unexplained(x, found) - unexplained(x, expected)) / unexplained(x, expected)
    tally.fvu_error = max(tally.fvu_error, gap)


def unscaled_bias(theirs: Any) -> None:
    """Scale b_dec as W_dec is for embeddings times √d_in, which sae-lens leaves out."""
    theirs.b_dec.data *= theirs.cfg.d_in**0.5


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest value expected."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def unexplained(x: np.ndarray, back: np.ndarray) -> float:
    """Fraction of variance unexplained."""
    return float(((x - back) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())


def load_theirs(release: str, sae_id: str) -> Any:
    """What sae-lens' users get for a release and an id."""
    from sae_lens import SAE

    return SAE.from_pretrained(release, sae_id)


def pretend_hub(hub: Path, view: Path) -> None:
    """Serve both libraries from a folder; ours sees the files that it asks for and no others."""
    import huggingface_hub
    import sae_lens.loading.pretrained_sae_loaders as loaders
    import sae_lens.saes.sae as sae_module
    from huggingface_hub.utils import EntryNotFoundError
    from safetensors import safe_open

    from tests.convert.layouts import D_IN, D_SAE

    def snapshot_download(
        repo: str, *, revision: str | None = None, allow_patterns: list[str]
    ) -> str:
        assert revision is None
        target = Path(tempfile.mkdtemp(dir=view)) / ("0" * 40)
        target.mkdir()
        for name in matching(hub / repo, allow_patterns):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(hub / repo / name, target / name)
        return str(target)

    def download(repo_id: str, filename: str, subfolder: str = "", **_: Any) -> str:
        path = hub / repo_id / subfolder / filename
        if not path.is_file():
            raise EntryNotFoundError(f"{path} is not there")
        return str(path)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        with safe_open(hub / repo_id / filename, "np") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118

    view.mkdir()
    huggingface_hub.snapshot_download = snapshot_download
    loaders.hf_hub_download = download
    loaders.get_safetensors_tensor_shapes = shapes
    overrides = sae_module.get_config_overrides
    # Loaders that know the real sizes by name are told the tiny ones.
    sae_module.get_config_overrides = lambda release, sae_id: {
        **overrides(release, sae_id),
        "d_in": D_IN,
        "d_sae": D_SAE,
        "d_out": D_IN,
    }


def matching(repo: Path, patterns: list[str]) -> Iterator[str]:
    """The repository's files that match, without a look at each file where a pattern is plain."""
    for pattern in patterns:
        if not set(pattern) & set("*?["):
            if (repo / pattern).is_file():
                yield pattern
            continue
        for path in repo.rglob("*"):
            name = path.relative_to(repo).as_posix()
            if path.is_file() and fnmatch.fnmatch(name, pattern):
                yield name


def table(result: dict[str, Any]) -> str:
    """The table of loaders, as docs/sae_format.md has it."""
    head = "| loader | releases | autoencoders | convert | encode error | decode error |\n"
    rows = [head, "|---|---|---|---|---|---|\n"]
    for name, tally in result["loaders"].items():
        decode = f"{tally['decode_error']:.1e}" if tally["decoders"] else "no decoder"
        compared = (f"{tally['encode_error']:.1e}", decode) if tally["compared"] else ("–", "–")
        cells = (f"`{name}`", tally["releases"], tally["autoencoders"], tally["converted"])
        rows.append("| " + " | ".join(map(str, (*cells, *compared))) + " |\n")
    return "".join(rows)


def write_table(result: dict[str, Any]) -> None:
    """Put the table between its marks in docs/sae_format.md."""
    before, rest = DOCS.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    DOCS.write_text(before + BEGIN + table(result) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
