"""The order of the house: what may import what, how large packages are, and no cycles."""

from collections import Counter
from pathlib import Path

import pytest

from tests.core.floors import Tree, cycle, of_packages

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT, ROOT / "convert", ROOT / "cli")
PACKAGES = ("fpo_core", "fpo_mlx", "fpo_torch", "fpo_convert", "fpo", "fpo_cli")
FLOORS = (
    ("fpo_core", "fpo_core.errors"),
    ("fpo_core.arrays", "fpo_core.config", "fpo_core.io"),
    ("fpo_core.events",),
    ("fpo_core.pairs",),
    ("fpo_core.data", "fpo_core.models"),
    ("fpo_core.adapters", "fpo_core.sae", "fpo_core.judges"),
    ("fpo_core.loss",),
    ("fpo_core.backend",),
    ("fpo_core.reference", "fpo_core.train", "fpo_core.evaluation"),
    ("fpo_core.sae_training", "fpo_core.values", "fpo_core.federated"),
    ("fpo_mlx", "fpo_torch"),
    ("fpo_convert",),
    ("fpo",),
    ("fpo_cli",),
)
WITHOUT = {
    "fpo_core": {"torch", "mlx", "mlx_lm", "peft", "typer", "rich"},
    "fpo_mlx": {"torch", "transformers", "peft", "fpo_torch", "typer", "rich"},
    "fpo_torch": {"mlx", "mlx_lm", "fpo_mlx", "typer", "rich"},
    "fpo_convert": {"typer", "rich"},
    "fpo": {"typer", "rich"},
}
"""Libraries that a package imports nowhere, at no depth."""
MODULES, FILES = 4, 18
"""Most modules directly under fpo_core, and most in one of its packages."""


@pytest.fixture(scope="module")
def house():
    return Tree(SOURCES, PACKAGES)


def test_a_floor_imports_only_from_above(house):
    assert len(house.files) > 150
    assert house.against(FLOORS) == []


def test_nothing_imports_in_a_circle(house):
    assert cycle(house.graph()) is None
    assert cycle(of_packages(house.graph(), FLOORS)) is None


def test_packages_do_without_the_libraries_of_others(house):
    assert house.foreign(WITHOUT) == []


def sizes(tree):
    """How many modules lie in each package of fpo_core, `fpo_core` itself for those in none."""
    folders = (path.relative_to(ROOT).parts for path in tree.files.values())
    return Counter(
        parts[1] if len(parts) > 2 else "" for parts in folders if parts[0] == "fpo_core"
    )


def test_packages_stay_small(house):
    found = sizes(house)
    assert 0 < found.pop("") <= MODULES
    assert found, "fpo_core has packages"
    assert {name: count for name, count in found.items() if count > FILES} == {}


def test_every_package_of_the_core_is_on_a_floor():
    folders = {f"fpo_core.{path.parent.name}" for path in (ROOT / "fpo_core").glob("*/__init__.py")}
    assert folders <= {name for floor in FLOORS for name in floor}


@pytest.fixture
def planted(tmp_path):
    """A small house: errors above sums, sums above loops."""
    for name, text in {
        "__init__": "",
        "errors": "class Wrong(Exception): ...",
        "sums/__init__": "",
        "sums/add": "from house.errors import Wrong",
        "loops/__init__": "",
        "loops/run": "import house.sums.add",
    }.items():
        path = tmp_path / "house" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


SMALL = (("house", "house.errors"), ("house.sums",), ("house.loops",))


def read(planted):
    return Tree([planted], ["house"])


def test_a_house_in_order_has_nothing_against_it(planted):
    tree = read(planted)
    assert tree.against(SMALL) == []
    assert cycle(tree.graph()) is None
    assert [str(edge) for edge in tree.imports] == [
        "house.loops.run:1 imports house.sums.add",
        "house.sums.add:1 imports house.errors",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "import house.loops.run",
        "import os, house.loops.run as run",
        "from house.loops import run",
        "from house.loops.run import start",
        "from ..loops import run",
        "from ..loops.run import start",
        "def add():\n    from house.loops import run",
        "def add():\n    if True:\n        import house.loops.run",
        "class Sum:\n    from house.loops.run import start",
        "if TYPE_CHECKING:\n    from house.loops.run import Run",
        "import importlib\nrun = importlib.import_module('house.loops.run')",
        "from importlib import import_module\nrun = lambda: import_module('house.loops.run')",
    ],
)
def test_a_planted_import_from_below_is_found(planted, code):
    (planted / "house/sums/planted.py").write_text(code)
    (found,) = read(planted).against(SMALL)
    assert found.startswith("house.sums.planted:")
    assert found.endswith("imports house.loops.run")


def test_a_package_from_below_is_found_where_no_module_is_named(planted):
    (planted / "house/errors.py").write_text("from house.sums import total")
    assert read(planted).against(SMALL) == ["house.errors:1 imports house.sums"]


def test_a_module_on_no_floor_is_found(planted):
    (planted / "house/attic.py").write_text("")
    assert read(planted).against(SMALL) == ["house.attic is on no floor"]


def test_planted_cycles_are_found(planted):
    (planted / "house/sums/other.py").write_text("def f():\n    from house.sums.add import g")
    (planted / "house/sums/add.py").write_text("import house.sums.other")
    tree = read(planted)
    assert tree.against(SMALL) == []  # one floor
    assert set(cycle(tree.graph()) or ()) == {"house.sums.add", "house.sums.other"}


def test_packages_of_one_floor_that_import_each_other_are_found(planted):
    (planted / "house/sums/add.py").write_text("import house.loops.walk")
    (planted / "house/loops/walk.py").write_text("")
    tree, level = read(planted), (("house", "house.errors"), ("house.sums", "house.loops"))
    assert tree.against(level) == []
    assert cycle(tree.graph()) is None  # the modules don't, their packages do
    assert set(cycle(of_packages(tree.graph(), level)) or ()) == {"house.sums", "house.loops"}


def test_a_planted_library_is_found(planted):
    (planted / "house/sums/planted.py").write_text("def f():\n    import torch.nn")
    assert read(planted).foreign({"house": {"torch"}}) == ["house.sums.planted:2 imports torch.nn"]
