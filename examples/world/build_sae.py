"""Train an autoencoder of the quickstart world's model with `fpo sae train`.

Run: PYTHONPATH=examples python examples/world/build_sae.py --out world.safetensors

It reads the output of a block, by default the third, at conversations of the grammar with random
traits and at unrelated texts. The one in `fpo/world/data/sae` was trained by an earlier script.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

from build_model import HELD_OUT
from unrelated_texts import make_unrelated

import fpo
from fpo.world import assets, make_prompt, make_reply, random_traits

LAYER = 2


def write_pairs(path: Path, count: int, rng: random.Random) -> None:
    """Prompts with two replies of random traits each; which is preferred means nothing here."""
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            prompt = make_prompt(rng)
            row = {"prompt": [{"role": "user", "content": prompt.text}]}
            for side in ("chosen", "rejected"):
                reply = make_reply(rng, prompt.item, random_traits(rng))
                row[side] = [{"role": "assistant", "content": reply}]
            file.write(json.dumps(row) + "\n")


def write_unrelated(path: Path, count: int, rng: random.Random) -> None:
    """Unrelated texts that are not held out, one a line."""
    texts = (make_unrelated(rng) for _ in range(count))
    path.write_text("".join(f"{text}\n" for text in texts if text not in HELD_OUT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=assets().model)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layer", type=int, default=LAYER, help="block, from 0")
    parser.add_argument("--d-sae", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=2_000_000, help="tokens trained on")
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        pairs, texts = Path(folder) / "pairs.jsonl", Path(folder) / "unrelated.txt"
        write_pairs(pairs, args.pairs, rng)
        write_unrelated(texts, args.pairs // 5, rng)
        result = fpo.train_sae(
            model=args.model,
            data=pairs,
            text=texts,
            output=args.out,
            layer=(str(args.layer),),
            architecture="topk",
            d_sae=args.d_sae,
            k=args.k,
            tokens=args.tokens,
            seed=args.seed,
            backend="torch",
            sink=fpo.print_progress,
        )
    print(result.to_json())


if __name__ == "__main__":
    main()
