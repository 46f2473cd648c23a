"""A run on the embedded world with its report, and a browser to look at that."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import fpo
from fpo.world import assets

from .open_rows import drawn

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where runs and caches of these tests lie."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPO_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="session")
def settings(folder: Path) -> dict[str, Any]:
    """Settings of a short run that moves features."""
    fpo.convert_sae(source=assets().sae, out=folder / "sae.safetensors")
    return {
        "model": assets().model,
        "data": assets().pairs,
        "sae": folder / "sae.safetensors",
        "max_rows": 24,
        "max_seq_length": 64,
        "iters": 6,
        "batch_size": 4,
        "rank": 4,
        "learning_rate": 3e-3,
        "beta": 10,
        "val_pairs": 12,
        "steps_per_report": 1,
        "steps_per_eval": 2,
        "shown_pairs": 12,
        "shown_features": 40,
        "feature_cap": 60,  # below what fires in a completion
        "normalize_d": False,
        "preflight": False,
        "backend": "torch",
    }


@pytest.fixture(scope="session")
def run(folder: Path, settings: dict[str, Any]) -> fpo.TrainingRun:
    """A run with everything that a report shows but samples."""
    return fpo.train(**settings, output=folder / "run", sink=lambda _: None)


@dataclass
class Seen:
    """A page, and what a person would not see of it."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; skipped where there is none, unless FPO_NEED_BROWSER is set."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None and not os.environ.get("FPO_NEED_BROWSER"):
        pytest.skip(f"no browser ({', '.join(BROWSERS)}) is installed: apt install chromium")
    assert path is not None, "FPO_NEED_BROWSER is set, and no browser is installed"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Seen]]:
    """Open a file at some width, in light or dark."""
    contexts = []

    def show(file: Path, width: int = 1280, scheme: str = "light") -> Seen:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        seen = Seen(context.new_page())
        seen.page.on("console", lambda message: seen.messages.append(message.text))
        seen.page.on("pageerror", lambda error: seen.messages.append(str(error)))
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on(
            "dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss())
        )
        seen.page.goto(f"file://{file}")
        drawn(seen.page)
        return seen

    yield show
    for context in contexts:
        context.close()
