"""Results on a stand-in for the hub: what goes up, what stays here, and what is refused when."""

import json
import shlex
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest

from fpo.publishing import PRIVATE, push
from fpo.world import assets
from fpo_core.errors import ConfigError
from fpo_core.events import silent

from .conftest import Fpo
from .test_errors import refused

REPO = "someone/aligned"
RUN = [
    "--backend",
    "torch",
    "--greedy-answers",
    0,
    "--iters",
    1,
    "--batch-size",
    2,
    "--val-pairs",
    2,
    "--no-preflight",
]


class StandIn:
    """The part of `HfApi` that uploads; keeps the names of what it was given."""

    files: ClassVar[set[str]] = set()
    created: ClassVar[dict[str, Any]] = {}
    settings: ClassVar[dict[str, Any]] = {}
    token = True

    def whoami(self) -> dict[str, str]:
        if not self.token:
            raise OSError("Token is required, but no token found")
        return {"name": "someone"}

    def create_repo(self, repo: str, **options: Any) -> huggingface_hub.RepoUrl:
        type(self).created = {"repo": repo, **options}
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo}")

    def upload_folder(self, *, folder_path: Path, ignore_patterns: list[str], **_: Any) -> None:
        paths = (p.relative_to(folder_path) for p in folder_path.rglob("*") if p.is_file())
        names = map(str, paths)
        chosen = huggingface_hub.utils.filter_repo_objects(names, ignore_patterns=ignore_patterns)
        type(self).files |= set(chosen)

    def upload_file(self, *, path_or_fileobj: bytes, path_in_repo: str, **_: Any) -> None:
        type(self).files |= {path_in_repo}
        type(self).settings = json.loads(path_or_fileobj)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setattr(huggingface_hub, "HfApi", StandIn)
    monkeypatch.setattr(StandIn, "files", set())
    monkeypatch.setattr(StandIn, "token", True)
    return StandIn


def test_an_adapter_and_a_merged_model_go_up_with_their_cards(
    fpo: Fpo, world: list[object], tmp_path: Path, hub: type[StandIn]
) -> None:
    push = ["--push-to-hub", REPO]
    ran = fpo("train", *world, *RUN, "--learning-rate", 0.01, "--output", tmp_path / "run", *push)
    assert ran.code == 0, ran.err
    assert f"uploaded to https://huggingface.co/{REPO}" in ran.err
    assert hub.created == {"repo": REPO, "private": True, "exist_ok": True}
    adapter = {"adapter_config.json", "adapter_model.safetensors", "adapters.safetensors"}
    assert hub.files == {*adapter, "README.md", "curves.png"}
    card = (tmp_path / "run/README.md").read_text()
    assert "fpo train \\\n" in card
    assert "  --model model" in card
    assert str(tmp_path) not in card
    assert hub.settings["base_model_name_or_path"] == "model"
    assert hub.settings["r"] == 8
    assert str(assets().model) not in json.dumps(hub.settings)

    merged = ["--adapter", tmp_path / "run", "--out", tmp_path / "merged", "--backend", "torch"]
    ran = fpo("fuse", "--model", assets().model, *merged, *push)
    assert ran.code == 0, ran.err
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= hub.files


def test_who_may_not_push_hears_it_before_the_run(
    fpo: Fpo, world: list[object], tmp_path: Path, hub: type[StandIn]
) -> None:
    options = [*world, *RUN, "--output", tmp_path / "run"]
    refused(fpo("train", *options, "--push-to-hub", "no such name"), "push_to_hub", "no such name")
    hub.token = False
    refused(fpo("train", *options, "--push-to-hub", REPO), REPO, "hf auth login")
    assert not (tmp_path / "run").exists()


def test_the_command_after_a_failed_upload_is_one_that_hf_takes(
    hub: type[StandIn], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each pattern has its own option, and no shell sees a star."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no more space")

    monkeypatch.setattr(StandIn, "upload_folder", refuse)
    folder = tmp_path / "my run"
    with pytest.raises(ConfigError, match="could not be uploaded") as raised:
        push(folder, REPO, silent)
    words = shlex.split(str(raised.value).split("`")[1])
    assert words[:5] == ["hf", "upload", REPO, str(folder), "."]
    assert words[5:] == [word for name in PRIVATE for word in ("--exclude", name)]
