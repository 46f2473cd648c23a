"""Build the quickstart world's tokenizer: one token a word of the grammar, bytes for all else.

Run: python examples/world/build_tokenizer.py --out fpo/world/data/model
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from unrelated_texts import make_unrelated

from fpo.world import make_prompt, make_reply, random_traits, world_path

BOS, EOS, PAD, END = "<|bos|>", "<|eos|>", "<|pad|>", "<|end|>"
ROLES = ("system", "user", "assistant")
VOCAB_SIZE = 1152
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('Unknown role ' + message['role'] + '.') -}}
{%- endif -%}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def sample_texts(n: int, seed: int) -> Iterator[str]:
    """Prompts, replies and unrelated texts."""
    rng = random.Random(seed)
    for _ in range(n):
        prompt = make_prompt(rng)
        yield prompt.text
        yield make_reply(rng, prompt.item, random_traits(rng))
        yield make_unrelated(rng)


def frequent_words(texts: Iterator[str], limit: int) -> list[str]:
    """The byte-level pieces of `texts`, most frequent first, single bytes left out."""
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    counts = Counter(piece for text in texts for piece, _ in splitter.pre_tokenize_str(text))
    ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
    kept = [piece for piece in ranked if len(piece) > 1]
    if len(kept) > limit:
        raise SystemExit(f"The grammar has {len(kept)} words, {limit} fit: raise VOCAB_SIZE.")
    return kept


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose vocabulary is special tokens, bytes, and whole words."""
    special = [PAD, BOS, EOS, END, *(f"<|{role}|>" for role in ROLES)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    limit = VOCAB_SIZE - len(special) - len(alphabet)
    found = frequent_words(sample_texts(40_000, seed), limit)
    vocab = {piece: i for i, piece in enumerate([*special, *alphabet, *found])}
    # ignore_merges: a known word is one token, anything else falls back to its bytes.
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocab[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[END, *(f"<|{role}|>" for role in ROLES)],
        chat_template=CHAT_TEMPLATE,
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )


def name_portable_class(path: Path) -> None:
    """Name a tokenizer class that transformers 4 knows too, and the special tokens its way."""
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["additional_special_tokens"] = config.pop("extra_special_tokens")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=world_path() / "model")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    tokenizer = build_tokenizer(args.seed)
    tokenizer.save_pretrained(args.out)
    name_portable_class(args.out / "tokenizer_config.json")
    print(f"{len(tokenizer)} tokens, written to {args.out}")


if __name__ == "__main__":
    main()
