"""A model's tokenizer: loading, special tokens, chat template, and fingerprint."""

import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date as calendar_date
from pathlib import Path
from typing import Any

from fpo_core.data.sources import looks_local
from fpo_core.data.time_limit import time_limit
from fpo_core.errors import DataError, ModelError
from fpo_core.io.hub import advice, reached
from fpo_core.pairs.messages import Message

Tokenizer = Any
"""A transformers `PreTrainedTokenizerBase`; importing that library for a type takes seconds."""

_PROBE = "probe"
_SECONDS, _CHARACTERS = 10.0, 1 << 26
"""What a chat template may take for a conversation, which usually takes it half a millisecond."""
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


def load_tokenizer(
    model: str, revision: str | None = None, trust_remote_code: bool = False
) -> Tokenizer:
    """The tokenizer of a model folder or hub name. Raises ModelError where it cannot be loaded.

    A tokenizer with custom code needs `trust_remote_code`.
    """
    folder = Path(model).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"model is {model!r}, a file; expected a folder or a hub name")
    if not folder.exists() and looks_local(model):
        raise ModelError(f"model is {model!r}, but there is no folder {folder.absolute()}")
    from transformers import AutoTokenizer

    name = str(folder) if folder.is_dir() else model
    reach = contextlib.nullcontext() if folder.is_dir() else reached(model, revision=revision)
    try:
        with reach:
            return AutoTokenizer.from_pretrained(
                name, revision=revision, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # transformers, the hub or custom code: no common class
        known = None if folder.is_dir() else advice(model, error)
        raise ModelError(known or _why_not(model, folder.is_dir(), error)) from None


def _why_not(model: str, is_folder: bool, error: Exception) -> str:
    """One sentence for an error while loading."""
    text = " ".join(str(error).split())
    if is_folder and not any((Path(model).expanduser()).glob("*token*")):
        return f"the folder {model} holds no tokenizer, expected tokenizer.json: add its files"
    if "trust_remote_code" in text:
        return f"the tokenizer of {model} has custom code: read it, then set trust_remote_code"
    if "gated repo" in text:
        return f"{model} is gated on the hub: accept its licence there and log in (hf auth login)"
    if not is_folder and "not a valid model identifier" in text:
        return f"{model} is neither a local folder nor a public model on the hub: check the name"
    if not is_folder and ("connect" in text.lower() or "offline" in text.lower()):
        return (
            f"{model} is not a local folder, and the hub cannot be reached: check name and network"
        )
    reason = text.split(". ")[0] or type(error).__name__
    return f"the tokenizer of {model} cannot be loaded: {reason}"


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    generation_prompt: bool,
    tools: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    where: str = "",
    date: str | None = None,
) -> str:
    """A conversation as text, by the tokenizer's chat template.

    A template that writes today's date writes `date` (ISO) instead where there is one.
    Raises DataError, with `where`, if there is no template or it refuses the conversation.
    """
    prefix = f"{where}: " if where else ""
    if not tokenizer.chat_template:
        raise DataError(
            f"{prefix}found messages, but the tokenizer has no chat template: use an "
            "instruction-tuned model, or write prompt, chosen and rejected as text"
        )
    settings = dict(kwargs or {}) | {
        "tools": list(tools) if tools else None,
        "tokenize": False,
        "add_generation_prompt": generation_prompt,
    }
    if date is not None and writes_date(tokenizer):
        template = tokenizer.get_chat_template(tools=settings["tools"])
        settings["chat_template"] = _dated(template, calendar_date.fromisoformat(date))
    try:
        with time_limit(_SECONDS):
            text = tokenizer.apply_chat_template(list(messages), **settings)
    except TimeoutError:
        reason = f"did not end within {_SECONDS:g} s"
    except Exception as error:  # a template is a program: it may raise anything
        reason = f"refuses the conversation: {error}"
    else:
        if len(text) <= _CHARACTERS:
            return text
        reason = f"writes {len(text)} characters, expected at most {_CHARACTERS}"
    raise DataError(f"{prefix}the chat template {reason}")


def writes_date(tokenizer: Tokenizer) -> bool:
    """Whether the chat template asks for today's date."""
    return "strftime_now" in str(tokenizer.chat_template or "")


def _dated(template: str, date: calendar_date) -> str:
    """`template` with `date` where it asks for today's.

    Transformers takes no function among a template's variables, so the call itself is replaced.
    """
    return _TODAY.sub(lambda call: json.dumps(date.strftime(call[2])), template)


def leading_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that the tokenizer puts before a plain text, usually BOS or none."""
    bare = tokenizer(_PROBE, add_special_tokens=False, verbose=False).input_ids
    full = tokenizer(_PROBE, verbose=False).input_ids
    starts = range(len(full) - len(bare) + 1)
    return full[: next((i for i in starts if full[i : i + len(bare)] == bare), 0)]


def special_ids(tokenizer: Tokenizer) -> dict[str, tuple[int, ...]]:
    """Token ids by role: "bos", "eos", "pad" and "end_of_turn", each empty where there is none.

    The end of turn is the first special token that the chat template writes after an assistant's
    message; without a template it is EOS.
    """
    roles = {
        name: () if id_ is None else (int(id_),)
        for name, id_ in (
            ("bos", tokenizer.bos_token_id),
            ("eos", tokenizer.eos_token_id),
            ("pad", tokenizer.pad_token_id),
        )
    }
    return roles | {"end_of_turn": _end_of_turn(tokenizer) or roles["eos"]}


def _end_of_turn(tokenizer: Tokenizer) -> tuple[int, ...]:
    probe = [{"role": role, "content": _PROBE} for role in ("user", "assistant")]
    try:
        text = render(tokenizer, probe, generation_prompt=False)
    except DataError:
        return ()
    after = tokenizer(text.rpartition(_PROBE)[2], add_special_tokens=False, verbose=False).input_ids
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return next(((int(id_),) for id_ in after if id_ in special), ())


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """A hash of how a tokenizer turns text into ids, its chat template included.

    It does not depend on where the tokenizer was loaded from or what it was used for.
    """
    total = hashlib.sha256()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        _add_files(total, tokenizer)
    else:
        state = json.loads(backend.to_str())
        # State of the last call with padding or truncation, not part of the tokenizer.
        state.update(padding=None, truncation=None)
        total.update(json.dumps(state, sort_keys=True).encode())
    settings = [type(tokenizer).__name__, tokenizer.special_tokens_map, tokenizer.chat_template]
    total.update(json.dumps(settings, sort_keys=True).encode())
    return total.hexdigest()


def _add_files(total: Any, tokenizer: Tokenizer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
            total.update(f"{path.name}:{path.stat().st_size};".encode() + path.read_bytes())
