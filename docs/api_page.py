"""The page and the stub of the Python API, from the signatures and docstrings of `fpo`."""

import ast
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator
from typing import Any

import fpo
from fpo.results import Result

WORKFLOWS = (
    "quickstart",
    "inspect_data",
    "augment_data",
    "list_saes",
    "convert_sae",
    "sae_info",
    "train_sae",
    "forecast_sae",
    "check_sae",
    "rank_features",
    "reference",
    "preflight",
    "train",
    "report",
    "evaluate",
    "generate",
    "answer_prompts",
    "sample",
    "train_value",
    "judge",
    "chat",
    "serve",
    "federate",
    "compare",
    "fuse",
    "convert_adapter",
    "convert_gguf",
    "doctor",
    "self_test",
)
"""In the order of the page, which is about that of use."""
_HEAD = """# Python API

Written by `make docs` from the docstrings of `fpo`; a test keeps it up to date.

{about}

What each setting means is in [cli.md](cli.md), where `learning_rate` is `--learning-rate`. Every
result has `to_mapping()`, `to_json()` and `table()`, and shows as its table in a notebook.
"""


def page() -> str:
    """docs/api.md."""
    about = inspect.cleandoc(fpo.__doc__ or "").replace("The Python API: each", "Each")
    parts = [_HEAD.format(about=about).strip()]
    for name in WORKFLOWS:
        function = getattr(fpo, name)
        parts += [f"## fpo.{name}", f"```python\n{_call(name, function)}\n```", _doc(function)]
        parts.append(_result(inspect.signature(function).return_annotation))
    return "\n\n".join(parts) + "\n"


def _call(name: str, function: Callable[..., Any]) -> str:
    """The call with every setting and its default, wrapped."""
    words = [_parameter(parameter) for parameter in inspect.signature(function).parameters.values()]
    words.insert(1, "*")
    returned = inspect.signature(function).return_annotation.__name__
    text = textwrap.fill(", ".join(words), 92, break_long_words=False, break_on_hyphens=False)
    return f"fpo.{name}(\n{textwrap.indent(text, '    ')}\n) -> {returned}"


def _parameter(parameter: inspect.Parameter) -> str:
    return parameter.name if parameter.default is ... else f"{parameter.name}={parameter.default!r}"


def _doc(value: Any) -> str:
    return inspect.cleandoc(value.__doc__ or "")


def _result(kind: type[Result]) -> str:
    """A result's attributes, a line each; those that most have are in the page's head."""
    lines = [f"`{kind.__name__}`: {_doc(kind)}", ""]
    lines += [f"- `{name}`{text and ': ' + text}" for name, text in _attributes(kind)]
    return "\n".join(lines)


def _attributes(kind: type[Result]) -> Iterator[tuple[str, str]]:
    """Fields and properties with their docstrings; of a method the call."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    for node, behind in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            described = isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant)
            text = str(behind.value.value) if described else ""  # pyright: ignore
            # Annotations of types that are not loaded are quoted in the source.
            annotation = ast.unparse(node.annotation).replace("'", "")
            yield f"{node.target.id}: {annotation}", _one_line(text)
        elif isinstance(node, ast.FunctionDef) and node.name not in (
            "to_mapping",
            "table",
            "_repr_html_",
        ):
            call = "" if node.decorator_list else "()"
            yield node.name + call, _one_line(ast.get_docstring(node) or "")


def _one_line(text: str) -> str:
    return " ".join(text.split())


_STUB = '''"""Written by `make docs` from settings and docstrings; a test keeps it up to date."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Literal

{imports}

_Stop = Callable[[], int | None]
_Text = str | PathLike[str]
'''


_BY = "Judge | Callable[[str, str], float] | None"


def stub() -> str:
    """fpo/__init__.pyi: explicit imports, and each workflow with all settings as keywords."""
    exported = {name: module for module, names in vars(fpo)["_NAMES"].items() for name in names}
    imports = [
        f"from {module} import {name} as {name}"
        for name, module in exported.items()
        if name not in WORKFLOWS
    ]
    parts = [_STUB.format(imports="\n".join(imports)).strip()]
    return "\n\n".join([*parts, *(_stub(name) for name in WORKFLOWS)]) + "\n"


def _stub(name: str) -> str:
    function = getattr(fpo, name)
    signature = inspect.signature(function)
    lines = [f"    {_typed(parameter)}," for parameter in signature.parameters.values()]
    lines.insert(1, "    *,")
    doc = textwrap.indent(f'"""{_doc(function)}\n"""', "    ")
    head = "\n".join([f"def {name}(", *lines, f") -> {signature.return_annotation.__name__}:"])
    return f"{head}\n{doc}"


def _typed(parameter: inspect.Parameter) -> str:
    default = "..." if parameter.default is ... else repr(parameter.default)
    aliased = {"sink": "Sink | None", "stop": "_Stop | None", "by": _BY}
    hint = aliased.get(parameter.name) or _hint(parameter.annotation)
    return f"{parameter.name}: {hint} = {default}"


def _hint(hint: Any) -> str:
    """A type as a stub writes it: paths for text, any sequence for a tuple of text."""
    if typing.get_origin(hint) is typing.Literal:
        return f"Literal[{', '.join(map(repr, typing.get_args(hint)))}]"
    if typing.get_origin(hint) is tuple:
        return "Sequence[_Text] | _Text"
    if args := typing.get_args(hint):
        return " | ".join(map(_hint, args))
    return {str: "_Text", type(None): "None"}.get(hint) or hint.__name__
