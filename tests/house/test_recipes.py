"""Each recipe of CONTRIBUTING, applied to a copy of the tree, passes the tests that it brings."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PACKAGES = ("fpo_core", "fpo_mlx", "fpo_torch", "convert", "fpo", "cli", "tests")
_RECIPE = re.compile(r"^### (.+?)\n(.*?)(?=^##)", re.M | re.S)
_BLOCK = re.compile(r"^```(?:python|text) (file=[^\n]+)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """Code of a recipe: a new file, or lines for one that exists."""

    file: str
    code: str
    where: dict[str, str]
    """`after`, `before` or `replace` with text of the file; `at` counts its lines from 1."""

    @classmethod
    def parse(cls, info: str, code: str) -> "Block":
        """A fenced block by its info string, such as `file=a.py after='LINE'`."""
        words = dict(word.split("=", 1) for word in shlex.split(info))
        return cls(words.pop("file"), code, {k: v.replace("\\n", "\n") for k, v in words.items()})

    def apply(self, tree: Path) -> None:
        """Change the file in `tree`. AssertionError where the recipe no longer fits."""
        path = tree / self.file
        if not self.where:
            assert not path.exists(), f"{self.file} exists already"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.code)
            return
        text = path.read_text()
        how, anchor = next((k, v) for k, v in self.where.items() if k != "at")
        starts = [match.start() for match in re.finditer(re.escape(anchor), text)]
        count = int(self.where.get("at", "0"))
        assert starts, f"{self.file} lacks {anchor!r}"
        assert count or len(starts) == 1, f"{self.file} has {anchor!r} {len(starts)} times"
        start = starts[max(count - 1, 0)]
        end = start + len(anchor)
        if how == "replace":
            path.write_text(text[:start] + self.code.rstrip("\n") + text[end:])
            return
        at = start if how == "before" else text.index("\n", end) + 1
        between = "\n\n" if how == "before" and not self.code.startswith(" ") else ""
        path.write_text(text[:at] + self.code + between + text[at:])


def recipes() -> dict[str, list[Block]]:
    text = CONTRIBUTING.read_text()
    return {
        title: [Block.parse(*match.groups()) for match in _BLOCK.finditer(body)]
        for title, body in _RECIPE.findall(text)
    }


def copy_of_the_tree(folder: Path) -> Path:
    """The packages and tests, with links to the embedded world's large files."""
    world = ROOT / "fpo/world/data"

    def ignored(directory: str, names: list[str]) -> set[str]:
        unwanted = {"__pycache__", "golden", "house"} & set(names)
        return unwanted | ({world.name} if Path(directory) == world.parent else set())

    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "fpo/world/data").symlink_to(world)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def brought_by(blocks: list[Block]) -> list[str]:
    return [block.file for block in blocks if block.file.startswith("tests/")]


def run_tests(tree: Path, files: list[str]) -> str:
    """What pytest prints in `tree`: a line per test, and one for each that fails."""
    roots = os.pathsep.join(str(tree / name) for name in ("", "convert", "cli"))
    command = [sys.executable, "-m", "pytest", "-vv", "-rfE", "-p", "no:cacheprovider", *files]
    environment = os.environ | {"PYTHONPATH": roots}
    ran = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode in (0, 1, 2), ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """All recipes applied to one copy, which shows that they don't collide, and their tests run."""
    tree = copy_of_the_tree(tmp_path_factory.mktemp("tree"))
    for blocks in recipes().values():
        for block in blocks:
            block.apply(tree)
    return run_tests(tree, [file for blocks in recipes().values() for file in brought_by(blocks)])


@pytest.mark.parametrize("title", recipes())
def test_a_recipe_works(title: str, output: str) -> None:
    files = brought_by(recipes()[title])
    assert files, f"the recipe {title!r} brings no test"
    for file in files:
        assert re.search(rf"^{file}::\S+ PASSED", output, re.M), output
        assert f"FAILED {file}" not in output, output


def test_without_its_code_a_recipe_fails(tmp_path: Path) -> None:
    """The tests look at the copy, and at what the recipe adds."""
    tree = copy_of_the_tree(tmp_path)
    blocks = [block for block in recipes()["An objective"] if block.file in brought_by([block])]
    for block in blocks:
        block.apply(tree)
    assert "FAILED tests/core/test_ipo.py" in run_tests(tree, brought_by(blocks))


def test_every_seam_has_a_recipe() -> None:
    expected = ["An objective", "An SAE format", "A command", "An optimizer", "A backend"]
    assert list(recipes()) == expected
