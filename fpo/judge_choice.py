"""The judge that settings name."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from fpo.backends import provided, select_backend
from fpo.world import score
from fpo_core.config import BackendConfig, ModelConfig
from fpo_core.config.judging import JudgeConfig
from fpo_core.data.cache import cache_root
from fpo_core.data.tokenizer import load_tokenizer
from fpo_core.errors import ConfigError, shorten
from fpo_core.events import Sink, note
from fpo_core.io.regular import read_text
from fpo_core.judges.chat_client import Attempts, ChatClient
from fpo_core.judges.classifier import Classifier, held_out_auc, read_labelled
from fpo_core.judges.endpoint import EndpointJudge
from fpo_core.judges.judge import FunctionJudge, Judge, as_judge, imported_judge
from fpo_core.judges.reply_file import ReplyFile
from fpo_core.judges.reward_model import RewardModelJudge, check_reward_model
from fpo_core.judges.rules import read_rules
from fpo_core.judges.templates import template_of
from fpo_core.models.folder import ModelFolder

_IMPORTED = re.compile(r"[\w.]+:\w+")


JudgeLike = Judge | Callable[[str, str], float]
"""A judge, or a function of a prompt and a completion."""


def choose_judge(
    config: JudgeConfig,
    computing: BackendConfig,
    sink: Sink,
    cache: str | None = None,
    by: JudgeLike | None = None,
) -> Judge:
    """`by` as a judge, else that of the settings. Raises ConfigError where there is neither."""
    if by is not None:
        return as_judge(by, getattr(by, "name", None) or getattr(by, "__name__", "function"))
    if config.judge is None:
        raise ConfigError("judge is not set, expected who judges: set it")
    return open_judge(config, computing, sink, cache)


def open_judge(
    config: JudgeConfig, computing: BackendConfig, sink: Sink, cache: str | None = None
) -> Judge:
    """The judge of the settings. Raises ConfigError where they name none.

    `computing` says where a reward model runs, `cache` where an endpoint's replies are kept.
    """
    name = config.judge
    assert name is not None, "settings without a judge open none"
    if config.is_endpoint:
        return _endpoint(config, sink, cache)
    if name == "oracle":
        return FunctionJudge(lambda prompt, text: score(prompt, text).preferred, "oracle")
    path = Path(name).expanduser()
    if path.is_dir():
        return _reward_model(path, computing, sink)
    if path.suffix in _READERS:
        return _READERS[path.suffix](path, sink)
    if _IMPORTED.fullmatch(name):
        return imported_judge(name)
    raise ConfigError(
        f"judge is {name}, which is no folder, no file of rules or labels, no MODULE:FUNCTION and "
        "no URL: check its spelling"
    )


def _of_rows(path: Path, sink: Sink) -> Judge:
    """A file whose first row has rules, or a label."""
    first = read_text(path, ConfigError).partition("\n")[0]
    try:
        has_rules = "rules" in json.loads(first)
    except (ValueError, TypeError):
        raise ConfigError(f"{path} line 1 is no JSON object, expected a row of a judge") from None
    if has_rules:
        return read_rules(path)
    labelled = read_labelled(path)
    note(
        sink,
        f"the classifier of {len(labelled.texts)} labelled answers tells held-out ones with an AUC "
        f"of {held_out_auc(labelled):.3f}",
    )
    return Classifier.fit(labelled.texts, labelled.labels, path.name)


_READERS: dict[str, Callable[[Path, Sink], Judge]] = {
    ".jsonl": _of_rows,
    ".yaml": lambda path, sink: read_rules(path),
    ".yml": lambda path, sink: read_rules(path),
    ".safetensors": lambda path, sink: Classifier.load(path),
}
"""Judges that are files, by the ending of their name."""


def _reward_model(path: Path, computing: BackendConfig, sink: Sink) -> Judge:
    config = ModelConfig(model=str(path), **computing.only(BackendConfig).to_mapping())
    folder = ModelFolder.locate(config)
    check_reward_model(folder)
    kind = provided(select_backend(config), "reward_model", "RewardModel")
    tokenizer = load_tokenizer(str(path))
    return RewardModelJudge(kind(folder.path, config), tokenizer, path.name, sink=sink)


def _endpoint(config: JudgeConfig, sink: Sink, cache: str | None) -> EndpointJudge:
    url = str(config.judge)
    attempts = Attempts(config.judge_timeout, config.judge_retries)
    replies = Path(config.verdicts or cache_root(cache).with_name("verdicts.jsonl")).expanduser()

    def client() -> ChatClient:
        try:
            return ChatClient(url, os.environ.get(config.judge_key_env) or None, attempts)
        except ValueError as error:  # what httpx makes of a URL or a key that is none
            raise ConfigError(
                f"judge is {url}, which cannot be asked ({shorten(error)}): check the URL and "
                f"{config.judge_key_env}"
            ) from None

    return EndpointJudge(
        client,
        str(config.judge_model),
        template_of(config.judge_template),
        ReplyFile(replies),
        server=url,
        concurrency=config.judge_concurrency,
        sink=sink,
    )
