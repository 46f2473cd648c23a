"""A word-level tokenizer whose ids can be read off by hand, and chat templates of many manners."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
PAD, BOS, EOS, START, END, THINK, UNTHINK = range(7)
WORDS = ["\n", "user", "assistant", "system", "a", "b", "c", "d", "e", "f", "ab", "tools:"]
IDS = {word: i for i, word in enumerate([*SPECIAL, *WORDS, "<unk>"])}
NL, USER, ASSISTANT, SYSTEM, A, B, C, D, E, F, AB, TOOLS = (IDS[word] for word in WORDS)

CHATML = (
    "{% if tools %}tools: {{ tools | length }} {% endif %}"
    "{% for m in messages %}<|im_start|> {{ m.role }} {{ '\n' }} {{ m.content }} <|im_end|> "
    "{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {{ '\n' }}{% endif %}"
)
"""Writes a line break behind each end of turn."""

THINKING = CHATML.replace(
    "assistant {{ '\n' }}{% endif %}", "assistant {{ '\n' }} <think>{% endif %}"
)
"""Opens a thought for generation that the rendered conversation does not hold."""

WITH_BOS = "<s>" + CHATML
"""Writes BOS itself, as Gemma's and Llama's templates do."""


def word_tokenizer(
    template: str | None = CHATML, *, bos: bool = False, eos: str | None = "</s>"
) -> PreTrainedTokenizerFast:
    """Words by white space, a line break being a word; `bos` puts <s> before plain texts."""
    inner = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" +"), "removed"),
            pre_tokenizers.Split("\n", "isolated"),
        ]
    )
    inner.decoder = decoders.Fuse()
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", BOS)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token=eos,
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>", "<think>", "</think>"],
    )
    tokenizer.chat_template = template
    return tokenizer


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a handful of merges, so that a boundary can fall inside a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("Ġ", "a")]
    pieces = ["<pad>", "</s>", *alphabet, "ab", "Ġa"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>")


def user(content: str) -> dict:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict:
    return {"role": "assistant", "content": content}


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
