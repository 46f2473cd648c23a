"""Reads the imports of a source tree, and says where they break the order of its floors."""

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

Floors = Sequence[Sequence[str]]
"""Packages and modules from the top down; a floor imports from floors above it, and its own."""


@dataclass(frozen=True)
class Import:
    """One import of one module, at whatever depth of its code."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


class Tree:
    """The modules of some packages, and what they import."""

    def __init__(self, sources: Sequence[Path], packages: Sequence[str]) -> None:
        """`sources` are the folders that hold the packages."""
        self.files = {
            _module(path, source): path
            for source in sources
            for package in packages
            for path in sorted((source / package).rglob("*.py"))
        }
        self.imports = [found for name in self.files for found in self._imports_of(name)]

    def _imports_of(self, module: str) -> Iterator[Import]:
        path = self.files[module]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in self._names(node, module, path.name == "__init__.py"):
                yield Import(module, name, node.lineno)  # pyright: ignore[reportAttributeAccessIssue]

    def _names(self, node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                base = _absolute(node, module, is_package)
                # `from package import module` imports the module; a name that is none, the package.
                names = (f"{base}.{alias.name}" for alias in node.names)
                yield from (name if name in self.files else base for name in names)
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name

    def graph(self) -> dict[str, set[str]]:
        """The modules of the tree that each module imports."""
        graph: dict[str, set[str]] = {name: set() for name in self.files}
        for edge in self.imports:
            if edge.imported in self.files and edge.imported != edge.importer:
                graph[edge.importer].add(edge.imported)
        return graph

    def against(self, floors: Floors) -> list[str]:
        """Imports from a floor below, and modules on no floor."""
        level = {name: number for number, floor in enumerate(floors) for name in floor}
        homeless = [f"{name} is on no floor" for name in self.files if _home(name, level) is None]
        wrong = []
        for edge in self.imports:
            from_home, to_home = _home(edge.importer, level), _home(edge.imported, level)
            if from_home and to_home and level[to_home] > level[from_home]:
                wrong.append(str(edge))
        return homeless + wrong

    def foreign(self, banned: Mapping[str, set[str]]) -> list[str]:
        """Imports of libraries that a package must do without."""
        return [
            str(edge)
            for edge in self.imports
            if edge.imported.split(".")[0] in banned.get(edge.importer.split(".")[0], set())
        ]


def cycle(graph: Mapping[str, set[str]]) -> list[str] | None:
    """A cycle in a graph of imports; None where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def of_packages(graph: Mapping[str, set[str]], floors: Floors) -> dict[str, set[str]]:
    """The graph between the packages that floors name."""
    names = [name for floor in floors for name in floor]
    result: dict[str, set[str]] = {name: set() for name in names}
    for importer, imported in graph.items():
        home = _home(importer, names)
        if home is not None:
            homes = {_home(name, names) for name in imported}
            result[home] |= {name for name in homes if name is not None and name != home}
    return result


def _module(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _home(module: str, names: Collection[str]) -> str | None:
    """The longest of the names that is the module or a package around it.

    A package whose insides are named too holds nothing but itself: what is added there is homeless.
    """
    divided = {name.rpartition(".")[0] for name in names}
    parts = module.split(".")
    prefixes = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
    around = (
        name for name in prefixes if name in names and (name == module or name not in divided)
    )
    return next(around, None)
