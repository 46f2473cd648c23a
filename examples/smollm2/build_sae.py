"""Train the example's autoencoder with SAELens and save it in SAELens's own format.

Run: PYTHONPATH=examples python examples/smollm2/build_sae.py

It reads the output of block 24 at tokens of two kinds of text: moodswapper's answers (MIT) in all
nine moods to prompts that are not held out, in the chat template, and docstrings of Python's
standard library (PSF licence). The first position, special tokens, the template's system message
and tokens whose norm exceeds five times the median are left out.
"""

import argparse
import ast
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fetch import HERE, fetch
from moods import CHOSEN, REJECTED, held_out, read_moods
from sae_lens.saes.sae import SAEMetadata
from topk_sae import Recipe, report, shrink, train_topk
from transformers import AutoModelForCausalLM, AutoTokenizer

LAYER = 24
WIDTH = 256
"""Most tokens of a text."""
OUTLIER = 5.0
"""Tokens whose norm exceeds so many times the median are left out."""
SHORTEST = 400
"""Least characters of a docstring."""


def chats(folder: Path, tokenizer: Any, *, validation: bool) -> list[list[int]]:
    """Prompt and answer as tokens of the chat template, less what all have in common.

    Validation holds the held-out prompts in the two moods of the pairs alone.
    """
    moods = read_moods(folder)
    names = (CHOSEN, REJECTED) if validation else sorted(moods)
    rows = [row for name in names for row in moods[name] if held_out(row["prompt"]) == validation]
    return [
        tokenizer.apply_chat_template(
            [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["response"]},
            ],
            return_dict=True,
        )["input_ids"]
        for row in rows
    ]


def docstrings() -> Iterator[str]:
    """Long docstrings of the standard library's modules, classes and functions, file by file."""
    root = Path(sysconfig.get_path("stdlib"))
    wanted = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for path in sorted([*root.glob("*.py"), *root.glob("[a-z]*/*.py")]):
        if {"site-packages", "test", "idlelib", "lib2to3"} & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, wanted)]
        yield from (text for text in found if text and len(text) >= SHORTEST)


@torch.no_grad()
def activations(
    model: Any, rows: list[list[int]], skipped: int, special: torch.Tensor
) -> torch.Tensor:
    """Outputs of block `LAYER` at the tokens that are trained on, (n, d_in), in bfloat16.

    The first `skipped` positions of each row are left out.
    """
    kept: list[torch.Tensor] = []
    hook = model.layers[LAYER].register_forward_hook(lambda _m, _i, output: kept.append(output))
    found = []
    rows = sorted((row[:WIDTH] for row in rows), key=len)
    for start in range(0, len(rows), 16):
        some = [torch.tensor(row) for row in rows[start : start + 16]]
        ids = torch.nn.utils.rnn.pad_sequence(some, batch_first=True, padding_value=special[0])
        model(ids)
        wanted = ~torch.isin(ids, special)
        wanted[:, :skipped] = False
        found.append(kept.pop()[wanted])
        if start % 800 == 0:
            print(f"{start} of {len(rows)} texts", flush=True)
    hook.remove()
    return torch.cat(found)


def without_outliers(acts: torch.Tensor) -> torch.Tensor:
    """The rows whose norm is at most `OUTLIER` times the median."""
    norms = acts.float().norm(dim=-1)
    kept = norms <= OUTLIER * norms.median()
    print(f"median norm {norms.median().item():.1f}; {(~kept).sum().item()} outliers left out")
    return acts[kept]


def common_prefix(rows: list[list[int]]) -> int:
    """How many first tokens all rows share."""
    first, last = min(rows), max(rows)
    pairs = enumerate(zip(first, last, strict=False))
    return next(i for i, (a, b) in pairs if a != b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "sae")
    parser.add_argument("--docs", type=int, default=150_000, help="tokens of docstrings")
    parser.add_argument("--d-sae", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--samples", type=int, default=1_400_000, help="tokens trained on")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--kept", type=Path, help="file that keeps activations between trials")
    args = parser.parse_args()
    assets = fetch()
    tokenizer = AutoTokenizer.from_pretrained(assets.model)
    special = sorted(tokenizer.all_special_ids)
    if args.kept and args.kept.is_file():
        found = torch.load(args.kept, weights_only=True)
    else:
        found = collect(assets.model, assets.moods, tokenizer, special, args)
        if args.kept:
            torch.save(found, args.kept)
    metadata = SAEMetadata(
        model_name="SmolLM2-135M-Instruct",
        model_class_name="AutoModelForCausalLM",
        hook_name=f"blocks.{LAYER}.hook_resid_post",
        hf_hook_name=f"model.layers.{LAYER}",
        hook_head_index=None,
        context_size=WIDTH,
        seqpos_slice=(None,),
        prepend_bos=True,
        exclude_special_tokens=special,
        dataset_path="moodswapper (MIT) in the chat template; docstrings of Python (PSF)",
    )
    recipe = Recipe(
        d_sae=args.d_sae,
        k=args.k,
        samples=args.samples,
        lr=args.lr,
        seed=args.seed,
        normalise=True,
        autocast=True,
    )
    train_topk(found["train"], recipe, metadata, args.out)
    shrink(args.out)
    report(args.out, found["chats"], "held-out chats")
    report(args.out, found["docs"], "held-out docstrings")


def collect(
    folder: Path, moods: Path, tokenizer: Any, special: list[int], args: argparse.Namespace
) -> dict[str, torch.Tensor]:
    """Activations to train on, shuffled, and held out ones of chats and of docstrings."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval().model
    model.layers = model.layers[: LAYER + 1]
    train, held = (chats(moods, tokenizer, validation=v) for v in (False, True))
    skipped = common_prefix(train)
    texts = [tokenizer(text)["input_ids"] for text in docstrings()]
    random.Random(args.seed).shuffle(texts)
    docs, total = [], 0
    while total < args.docs and texts:
        docs.append(texts.pop()[:WIDTH])
        total += len(docs[-1])
    marks = torch.tensor(special)
    parts = [
        activations(model, train, skipped, marks),
        activations(model, docs, 1, marks),
    ]
    print(f"{len(parts[0])} tokens of chats, {len(parts[1])} of docstrings")
    return {
        "train": without_outliers(torch.cat(parts)),
        "chats": without_outliers(activations(model, held, skipped, marks)),
        "docs": without_outliers(activations(model, texts[:100], 1, marks)),
    }


if __name__ == "__main__":
    main()
