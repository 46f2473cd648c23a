"""What README, CONTRIBUTING and docs say of the code is true of it."""

import importlib
import re
from pathlib import Path

import pytest

from fpo.world import assets
from fpo_core.config import DataConfig
from fpo_core.data.batches import collate
from fpo_core.data.load import load_data
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.data.tokenizer import load_tokenizer
from fpo_core.loss.packing import Row
from tests.core.floors import Tree

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
SOURCE_ROOTS = ("convert", "cli")
_TREE = re.compile(r"^```\n(fpo_core/ .*?)^```", re.M | re.S)
_ENTRY = re.compile(r"^( *)([\w/.]+?)/? {2,}(.+)$", re.M)
_NAME = re.compile(r"`(fpo_[a-z]+(?:\.(?!json`)\w+)+|fpo(?:\.[a-z]\w+)+)`")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)(#[^)]*)?\)")


def tree_in(page: str) -> str:
    match = _TREE.search((ROOT / page).read_text())
    assert match, f"{page} shows no tree"
    return match[1]


def listed() -> dict[str, str]:
    """Each folder or module of the tree by its path, with what is said of it."""
    found: dict[str, str] = {}
    parent = ""
    for indent, name, words in _ENTRY.findall(tree_in("CONTRIBUTING.md")):
        parent = parent if indent else name
        found[f"{parent}/{name}" if indent else name] = words
    return found


def packages() -> list[str]:
    """Packages of the product, relative to the root, those of the top and one below."""
    tops = [path for path in ROOT.glob("fpo*") if path.is_dir()]
    tops += [path for root in SOURCE_ROOTS for path in (ROOT / root).glob("fpo_*")]
    below = [path for top in tops for path in top.iterdir()]
    found = [path for path in (*tops, *below) if (path / "__init__.py").is_file()]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def test_the_tree_names_every_package_with_a_few_words() -> None:
    assert tree_in("README.md") == tree_in("CONTRIBUTING.md")
    paths = listed()
    assert {path for path in paths if "fpo" in path and not path.endswith(".py")} == {*packages()}
    for path, words in paths.items():
        assert (ROOT / path).exists(), path
        assert 2 <= len(words.split()) <= 8, words


def test_the_order_of_the_tree_is_that_of_imports() -> None:
    names = [re.sub(r"^(convert|cli)/", "", path).removesuffix(".py") for path in listed()]
    modules = [name.replace("/", ".") for name in names if name.startswith("fpo")]
    # A package is a floor of its own, but the parts of those that show theirs in no order.
    unordered = ("fpo_mlx", "fpo_torch", "fpo_convert", "fpo", "fpo_cli")
    floors = [(name,) for name in modules if "." not in name or name.startswith("fpo_core.")]
    tree = Tree([ROOT, *(ROOT / root for root in SOURCE_ROOTS)], ["fpo_core", *unordered])
    assert tree.against(floors) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_and_links_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    for name in set(_NAME.findall(text)):
        assert resolves(name), f"{page.name} names {name}"
    for link, _ in _LINK.findall(text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    module, _, rest = name, "", ""
    while module:
        try:
            value = importlib.import_module(module)
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest = f"{last}.{rest}".strip(".")
            continue
        for part in filter(None, rest.split(".")):
            known = part in getattr(value, "__annotations__", {})
            if not hasattr(value, part) and not known:
                return False
            value = getattr(value, part, None)
        return True
    return False


def test_the_pair_of_how_it_works(tmp_path: Path) -> None:
    """Every length in the table is counted on the embedded world's first pair."""
    text = (ROOT / "docs/how-it-works.md").read_text()
    pairs = first_pair(tmp_path)
    pair, batch = pairs[0], collate(pairs, [0])
    prompt, chosen, rejected = map(len, (pair.prompt, pair.chosen, pair.rejected))
    row = Row.of(batch, ())
    assert f"prompt of {prompt} tokens, two replies of {chosen}" in text
    assert f"({prompt}) and of both replies ({chosen}, {rejected})" in text
    assert f"tokens {batch.tokens.shape}, lengths {tuple(batch.lengths.tolist())}" in text
    assert f"{len(row.tokens)} tokens, not 2 × {batch.width}" in text
    assert f"at the {len(row.scored.labels)} scored tokens" in text


def first_pair(cache: Path) -> TokenisedPairs:
    settings = DataConfig(data=str(assets().pairs), max_rows=1, cache=str(cache))
    return load_data(settings, load_tokenizer(str(assets().model))).train


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert len(code) == 1
    few = code[0].replace("iters=40", "iters=2, max_rows=8, val_pairs=4, batch_size=2")
    assert few != code[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FPO_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    exec(few, names)
    assert names["run"].metrics["fpo/kl_rejected"] > 0  # pyright: ignore
