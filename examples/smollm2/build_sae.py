"""Train an autoencoder of the example's model with `fpo sae train`.

Run: python examples/smollm2/build_sae.py --out smollm2.safetensors

It reads the output of block 24 at two kinds of text: moodswapper's answers (MIT) in all nine moods,
in the chat template, and docstrings of Python's standard library (PSF licence). Prompts of the
pairs' validation rows are held out. The autoencoder in `sae/` was trained by an earlier script.
"""

import argparse
import ast
import json
import random
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from fetch import fetch
from moods import held_out, read_moods

import fpo

LAYER = "24"
SHORTEST = 400
"""Least characters of a docstring."""


def write_answers(moods: Path, folder: Path) -> None:
    """Each prompt's answers two by two, as pairs; prompts that are held out as valid.jsonl."""
    answers: dict[str, list[str]] = defaultdict(list)
    for _, rows in sorted(read_moods(moods).items()):
        for row in rows:
            answers[row["prompt"]].append(row["response"])
    for name, validation in (("train", False), ("valid", True)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for prompt, texts in answers.items():
                if held_out(prompt) == validation:
                    # With an odd number the last one meets the first again, which is read once.
                    for at in range(0, len(texts), 2):
                        pair = {"prompt": prompt, "chosen": texts[at]}
                        pair["rejected"] = texts[(at + 1) % len(texts)]
                        file.write(json.dumps(_as_messages(pair), ensure_ascii=False) + "\n")


def _as_messages(pair: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {name: [{"role": roles[name], "content": text}] for name, text in pair.items()}


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
        texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, wanted)]
        yield from (text for text in texts if text and len(text) >= SHORTEST)


def write_docstrings(path: Path, count: int, seed: int) -> None:
    """Some docstrings, as `text` of JSON lines."""
    texts = list(docstrings())
    random.Random(seed).shuffle(texts)
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts[:count])
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--docstrings", type=int, default=800)
    parser.add_argument("--d-sae", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=1_400_000, help="tokens trained on")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--cache", type=Path, help="folder that keeps activations between trials")
    args = parser.parse_args()
    assets = fetch()
    with tempfile.TemporaryDirectory() as temporary:
        folder, texts = Path(temporary) / "answers", Path(temporary) / "docstrings.jsonl"
        folder.mkdir()
        write_answers(assets.moods, folder)
        write_docstrings(texts, args.docstrings, args.seed)
        result = fpo.train_sae(
            model=assets.model,
            data=folder,
            text=texts,
            output=args.out,
            layer=(LAYER,),
            d_sae=args.d_sae,
            k=args.k,
            tokens=args.tokens,
            seed=args.seed,
            cache=args.cache,
            save_dtype="float16",
            sink=fpo.print_progress,
        )
    print(result.to_json())


if __name__ == "__main__":
    main()
