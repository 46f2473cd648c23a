"""Missing, gated, refused, unreachable: one sentence, for models, autoencoders and pairs."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest

from fpo.world import assets

from .conftest import Fpo
from .test_errors import refused

NAME = "someone/thing"
COMMANDS: dict[str, list[object]] = {
    "model": ["generate", "--model", NAME, "--prompt", "p"],
    "tokenizer": ["data", "inspect", "--model", NAME, "--data", assets().pairs],
    "autoencoder": ["convert", "sae", f"{NAME}:layer_3", "--out", "sae.safetensors"],
    "pairs": ["data", "inspect", "--model", assets().model, "--data", NAME],
}
ANSWERS: dict[str, tuple[int | None, str | None, tuple[str, ...]]] = {
    "missing": (404, "RepoNotFound", ("check the name",)),
    "gated": (403, "GatedRepo", ("is gated", "accept its licence", "hf auth login")),
    "not logged in": (401, None, ("check the name", "hf auth login")),
    "offline": (None, None, ("hub cannot be reached", "check")),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """The hub's library, whose every request gets the same answer, or none."""
    http = importlib.import_module("huggingface_hub.utils._http")
    library: Any = http.httpx2 if hasattr(http, "httpx2") else http.httpx
    # A request that is sent again comes after a second, then two, then four.
    repeated = {"sleep": lambda _: pytest.fail("a request was repeated")}
    monkeypatch.setattr(http, "time", SimpleNamespace(**vars(http.time) | repeated))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, value in (("HF_HUB_OFFLINE", False), ("HF_DATASETS_CACHE", tmp_path / "datasets")):
        monkeypatch.setattr(datasets.config, name, value)

    def answer(status: int | None, code: str | None) -> None:
        def handle(request: Any) -> Any:
            if status is None:
                raise library.ConnectError("no route to host")
            headers = {} if code is None else {"X-Error-Code": code, "X-Error-Message": code}
            return library.Response(status, headers=headers, request=request)

        transport = library.MockTransport(handle)
        huggingface_hub.set_client_factory(lambda: library.Client(transport=transport))

    yield answer
    huggingface_hub.set_client_factory(http.default_client_factory)


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.parametrize("situation", ANSWERS)
def test_each_situation_says_what_to_do(
    fpo: Fpo,
    hub: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    what: str,
    situation: str,
) -> None:
    status, code, words = ANSWERS[situation]
    hub(status, code)
    monkeypatch.chdir(tmp_path)
    refused(fpo(*COMMANDS[what]), NAME, *words)
    assert not (tmp_path / "sae.safetensors").exists()


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_an_unsupported_model_is_named(fpo: Fpo, tmp_path: Path, backend: str) -> None:
    import json
    import shutil

    model = tmp_path / "model"
    shutil.copytree(assets().model, model)
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | {"model_type": "nothing_known"}))
    options = ["--model", model, "--prompt", "p", "--backend", backend]
    refused(
        fpo("generate", *options),
        "does not support the model_type 'nothing_known'",
        "another family",
    )
