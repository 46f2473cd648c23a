"""Train the quickstart world's autoencoder with SAELens and save it in SAELens's own format.

Run: PYTHONPATH=examples python examples/world/build_sae.py

It reads the output of a block, by default the third, at every token of the grammar's texts, special
tokens left out. SAELens is a dependency of this script alone.
"""

import argparse
import random
from pathlib import Path

import torch
from build_model import encode_chat, random_example
from sae_lens import SAE
from sae_lens.saes.sae import SAEMetadata
from topk_sae import Recipe, report, train_topk
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from fpo.world import assets, make_prompt, make_reply, random_traits

LAYER = 2


@torch.no_grad()
def activations(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, layer: int, n_tokens: int, seed: int
) -> torch.Tensor:
    """Outputs of a block at non-special tokens, (n_tokens, d_in), in random order."""
    kept: list[torch.Tensor] = []
    hook = model.get_submodule(f"model.layers.{layer}").register_forward_hook(
        lambda _module, _inputs, output: kept.append(_hidden(output))
    )
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    rng, found, total = random.Random(seed), [], 0
    while total < n_tokens:
        ids = _padded_ids(tokenizer, rng, 64)
        model(ids)
        found.append(kept.pop()[~torch.isin(ids, special)])
        total += len(found[-1])
    hook.remove()
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return torch.cat(found)[order[:n_tokens]]


def _hidden(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _padded_ids(tokenizer: PreTrainedTokenizerFast, rng: random.Random, n: int) -> torch.Tensor:
    """Right-padded token ids of `n` texts; padding is special, so it is left out later."""
    rows = [torch.tensor(random_example(tokenizer, rng)[0]) for _ in range(n)]
    pad = float(tokenizer.pad_token_id or 0)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)


def where_it_reads(layer: int, special: list[int]) -> SAEMetadata:
    """The metadata that say where the autoencoder belongs."""
    return SAEMetadata(
        model_name="fpo-world-1m",
        model_class_name="AutoModelForCausalLM",
        hook_name=f"blocks.{layer}.hook_resid_post",
        hf_hook_name=f"model.layers.{layer}",
        hook_head_index=None,
        context_size=64,
        seqpos_slice=(None,),
        prepend_bos=True,
        exclude_special_tokens=special,
        dataset_path="grammar of fpo.world",
    )


@torch.no_grad()
def report_attributes(
    path: Path, model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, layer: int
) -> None:
    """Print the largest difference of a feature's mean activation between polite and rude."""
    sae, means = SAE.load_from_disk(path), []
    for value in ("polite", "rude"):
        rng, codes = random.Random(9), []
        for _ in range(100):
            prompt = make_prompt(rng)
            reply = make_reply(rng, prompt.item, random_traits(rng, politeness=value))
            ids, head = encode_chat(tokenizer, prompt.text, reply)
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            # hidden_states[0] is the embedding, so the output of block n is at n + 1.
            codes.append(sae.encode(states[layer + 1][0, head:-1]).mean(0))
        means.append(torch.stack(codes).mean(0))
    gap, feature = (means[0] - means[1]).abs().max(0)
    print(f"politeness: feature {feature.item()} differs by {gap.item():.3f} on average")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=assets().model)
    parser.add_argument("--out", type=Path, default=assets().sae)
    parser.add_argument("--layer", type=int, default=LAYER, help="block, from 0")
    parser.add_argument("--d-sae", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--tokens", type=int, default=400_000, help="tokens held in memory")
    parser.add_argument("--samples", type=int, default=2_000_000, help="tokens trained on")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model).eval()
    acts = activations(model, tokenizer, args.layer, args.tokens, args.seed)
    recipe = Recipe(
        d_sae=args.d_sae,
        k=args.k,
        samples=args.samples,
        lr=args.lr,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    metadata = where_it_reads(args.layer, sorted(tokenizer.all_special_ids))
    train_topk(acts, recipe, metadata, args.out)
    report(args.out, activations(model, tokenizer, args.layer, 50_000, args.seed + 1))
    report_attributes(args.out, model, tokenizer, args.layer)


if __name__ == "__main__":
    main()
