"""Write the quickstart world's pairs and unrelated texts, or pairs for another attribute.

Run: python examples/world/build_pairs.py
Run: python examples/world/build_pairs.py --attribute format --match length --out pairs-json

The shipped pairs are near-ties: the world's model finds both replies about as likely.
"""

import argparse
from pathlib import Path

import torch
from build_model import collate, encode_chat, token_loss
from pair_rows import (
    PAIRS_ATTRIBUTE,
    PAIRS_SEED,
    UNRELATED_SEED,
    Likelihood,
    dump_jsonl,
    make_splits,
    make_unrelated_rows,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from fpo.world import (
    ATTRIBUTES,
    assets,
)


def model_likelihood(path: Path) -> Likelihood:
    """The model's mean log-probability of a reply, its end of turn included, per token.

    In float64: which replies count as a near-tie must not hang on a machine's rounding.
    """
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path).double().eval()

    @torch.no_grad()
    def likelihood(prompt: str, reply: str) -> float:
        ids, labels = collate([encode_chat(tokenizer, prompt, reply)], tokenizer.pad_token_id)
        return -token_loss(model, ids, labels).item()

    return likelihood


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attribute", choices=list(ATTRIBUTES), default=PAIRS_ATTRIBUTE)
    parser.add_argument("--prefer", help="the chosen side's value (default: the second one)")
    parser.add_argument("--vary-others", action="store_true", help="draw other attributes apart")
    parser.add_argument("--match", choices=["likelihood", "length"], default="likelihood")
    parser.add_argument("--model", type=Path, default=assets().model, help="for the likelihood")
    parser.add_argument("--train", type=int, default=800, help="training pairs")
    parser.add_argument("--valid", type=int, default=200, help="validation pairs")
    parser.add_argument("--seed", type=int, default=PAIRS_SEED)
    parser.add_argument("--out", type=Path, help="default: the package's data (unrelated text too)")
    args = parser.parse_args()
    train, valid = make_splits(
        args.attribute,
        args.seed,
        n_train=args.train,
        n_valid=args.valid,
        prefer=args.prefer,
        vary_others=args.vary_others,
        likelihood=model_likelihood(args.model) if args.match == "likelihood" else None,
    )
    out = args.out or assets().pairs
    dump_jsonl(train, out / "train.jsonl")
    dump_jsonl(valid, out / "valid.jsonl")
    if args.out is None:
        dump_jsonl(make_unrelated_rows(100, UNRELATED_SEED), assets().unrelated)
    print(f"{len(train)} training and {len(valid)} validation pairs written to {out}")


if __name__ == "__main__":
    main()
