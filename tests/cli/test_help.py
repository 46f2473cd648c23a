"""`fpo --help` is quick and clean, tells every default, and the written page is up to date."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from fpo_cli.console.command import COMMANDS
from fpo_core.config import TrainConfig

ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT / part) for part in (".", "convert", "cli")]
PRINTERS = {"typer", "click", "shellingham", "annotated_doc", "typing_extensions", "colorama"}
PRINTERS |= {"attr", "attrs"}  # rich looks for it wherever it is installed
PRINTERS |= {"rich", "pygments", "markdown_it", "mdurl"}


def packages_after(code: str) -> set[str]:
    """Those outside the standard library that a fresh process has loaded."""
    code = f"import sys; sys.path[:0] = {PATHS!r}\n{code}\nprint(*sys.modules)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in out.split()} - sys.stdlib_module_names


HELP = """
import contextlib, io
sys.argv = ["fpo", "--help"]
from fpo_cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
"""


def test_help_loads_what_prints_it_and_nothing_else() -> None:
    """Each further package would be waited for at every command; a framework for seconds."""
    loaded = packages_after(HELP) - packages_after("")
    assert {"fpo_cli", "rich"} <= loaded
    loaded -= {"fpo", "fpo_cli", "fpo_core", "yaml", *PRINTERS}
    assert {name for name in loaded if "cython" not in name} == set()  # some builds of PyYAML


def test_help_of_train_names_every_option_and_default(fpo, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    text = " ".join(fpo("train", "--help").out.replace("│", " ").split())
    for field in dataclasses.fields(TrainConfig):
        option = "--" + field.name.replace("_", "-")
        assert option in text, option
        if field.default not in (None, dataclasses.MISSING, True, False):
            assert f"[default: {field.default}]" in text, option
    assert "--max-length" in text
    assert "no-strict" in text


@pytest.mark.parametrize("command", [c.path for c in COMMANDS])
def test_every_command_takes_the_common_options(command: str, fpo, monkeypatch) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    ran = fpo(*command.split()[1:], "--help")
    assert ran.code == 0
    for option in ("--backend", "--config", "-c", "--json"):
        assert option in ran.out


def test_there_are_all_commands() -> None:
    assert {c.path for c in COMMANDS if c.run.__module__.startswith("fpo_cli")} == {
        "fpo quickstart",
        "fpo federate",
        "fpo convert sae",
        "fpo convert adapter",
        "fpo convert gguf",
        "fpo sae info",
        "fpo sae check",
        "fpo sae list",
        "fpo sae train",
        "fpo sae features",
        "fpo reference",
        "fpo train",
        "fpo report",
        "fpo compare",
        "fpo eval",
        "fpo fuse",
        "fpo generate",
        "fpo sample",
        "fpo value train",
        "fpo judge",
        "fpo chat",
        "fpo serve",
        "fpo data inspect",
        "fpo data augment",
        "fpo doctor",
    }
