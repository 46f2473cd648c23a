"""Results on the Hugging Face hub: an adapter, or a whole model, with its card."""

import json
import shlex
from pathlib import Path

from fpo_core.adapters.writer import CONFIG_FILE
from fpo_core.errors import ConfigError
from fpo_core.evaluation.model_card import shown
from fpo_core.events import Sink, note
from fpo_core.io.hub import advice

PRIVATE = (
    *("checkpoints/*", "reference/*", "best/*", "tensorboard/*", "wandb/*"),
    *("fpo_config.json", "fpo_base.json", "log.jsonl", "report.html", "report.json"),
)
"""What stays here: the state of the run, and files with paths of this machine or rows of data.

Of the data the card alone shows some: answers to held-out prompts."""


def check_account(repo: str | None) -> None:
    """Raise ConfigError where nothing could be pushed to `repo`: asked before hours of training."""
    if repo is None:
        return
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        HfApi().whoami()
    except Exception as error:  # no token, a refused one, no network, or no such name
        reason = advice(repo, error) or str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(
            f"push_to_hub is {repo!r}, and the hub would refuse it ({reason}): run `hf auth login` "
            "with a token that may write, or leave push_to_hub out"
        ) from None


def push(folder: Path, repo: str | None, sink: Sink) -> str | None:
    """Upload a result to `repo`, private where it is new; its address. None for no `repo`."""
    if repo is None:
        return None
    from huggingface_hub import HfApi

    note(sink, f"uploading {folder} to {repo}")
    api = HfApi()
    try:
        created = api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=created.repo_id,
            folder_path=folder,
            ignore_patterns=[*PRIVATE, CONFIG_FILE],
            commit_message="Upload by fpo-mlx",
        )
        if (folder / CONFIG_FILE).is_file():
            api.upload_file(
                path_or_fileobj=_without_paths(folder / CONFIG_FILE),
                path_in_repo=CONFIG_FILE,
                repo_id=created.repo_id,
                commit_message="Upload by fpo-mlx",
            )
    except Exception as error:  # the result is whole here, whatever went wrong there
        reason = advice(repo, error) or str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(
            f"{folder} is complete, but could not be uploaded to {repo} ({reason}): try again with "
            f"`{_command(folder, repo)}`"
        ) from None
    note(sink, f"uploaded to {created}")
    return str(created)


def _command(folder: Path, repo: str) -> str:
    """What uploads a folder by hand."""
    words = ["hf", "upload", repo, str(folder), "."]
    return shlex.join([*words, *(word for name in PRIVATE for word in ("--exclude", name))])


def _without_paths(config: Path) -> bytes:
    """An adapter's configuration whose base is a hub name, or the last part of a path."""
    values = json.loads(config.read_text(encoding="utf-8"))
    base = {k: shown(values[k]) for k in ("base_model_name_or_path", "model") if values.get(k)}
    return (json.dumps(values | base, indent=2, ensure_ascii=False) + "\n").encode()
