"""Train the quickstart world's model: a 1M-parameter Llama, on replies and unrelated text.

Run: python examples/world/build_model.py --steps 2500

A quarter of the examples are unrelated texts; the shipped ones are never trained on.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from pair_rows import UNRELATED_SEED, make_unrelated_rows
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from unrelated_texts import make_unrelated

from fpo.world import (
    assets,
    make_prompt,
    make_reply,
    random_traits,
    score,
)

HELD_OUT = {row["text"] for row in make_unrelated_rows(100, UNRELATED_SEED)}
UNRELATED_SHARE = 0.25
IGNORE = -100  # the label that the loss skips
Example = tuple[list[int], int]  # token ids, and how many of the first ones carry no loss


def model_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Four blocks of width 128, tied embeddings, generation ending at the end-of-turn token."""
    return LlamaConfig(
        vocab_size=1152,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|bos|>"),
        eos_token_id=tokenizer.convert_tokens_to_ids("<|end|>"),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )


def encode_chat(tokenizer: PreTrainedTokenizerFast, prompt: str, reply: str) -> Example:
    """A conversation; only the reply and its end-of-turn token carry a loss."""
    head = tokenizer(f"<|bos|><|user|>{prompt}<|end|><|assistant|>", add_special_tokens=False)
    tail = tokenizer(f"{reply}<|end|>", add_special_tokens=False)
    return head["input_ids"] + tail["input_ids"], len(head["input_ids"])


def random_example(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Example:
    """A conversation with random traits or an unrelated text that is not held out."""
    if rng.random() >= UNRELATED_SHARE:
        prompt = make_prompt(rng)
        return encode_chat(tokenizer, prompt.text, make_reply(rng, prompt.item, random_traits(rng)))
    text = make_unrelated(rng)
    while text in HELD_OUT:
        text = make_unrelated(rng)
    return tokenizer(text + "<|eos|>")["input_ids"], 1


def collate(examples: list[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and labels, each (b, t)."""
    width = max(len(ids) for ids, _ in examples)
    ids = torch.full((len(examples), width), pad)
    labels = torch.full((len(examples), width), IGNORE)
    for row, (tokens, skipped) in enumerate(examples):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, skipped : len(tokens)] = torch.tensor(tokens[skipped:])
    return ids, labels


def token_loss(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the labelled tokens; right padding needs no mask when causal."""
    targets = labels[:, 1:]
    kept = targets != IGNORE
    hidden = model.model(ids[:, :-1]).last_hidden_state[kept]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden), targets[kept])


def train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace
) -> None:
    """AdamW with a linear warm-up of 100 steps and a cosine decay to zero."""
    rng, pad, start = random.Random(args.seed), model.config.pad_token_id, time.time()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=args.weight_decay
    )
    for step in range(args.steps):
        rate = min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        optimizer.param_groups[0]["lr"] = args.lr * rate
        batch = [random_example(tokenizer, rng) for _ in range(args.batch_size)]
        loss = token_loss(model, *collate(batch, pad))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step + 1 == args.steps:
            print(f"step {step} loss {loss.item():.3f} {time.time() - start:.0f} s", flush=True)


def save(model: LlamaForCausalLM, out: Path) -> None:
    """Write the model, with rope_theta also where readers of older configs look for it."""
    model.generation_config.eos_token_id = [model.config.eos_token_id, 2]
    model.save_pretrained(out)
    path = out / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@torch.no_grad()
def report(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, n: int = 400) -> None:
    """Print perplexity on the held-out texts and the oracle's means over sampled replies."""
    model.eval()
    pad = model.config.pad_token_id
    texts = [(tokenizer(text + "<|eos|>")["input_ids"], 1) for text in sorted(HELD_OUT)]
    print(f"unrelated perplexity {token_loss(model, *collate(texts, pad)).exp().item():.3f}")
    rng, scores = random.Random(7), []
    for _ in range(n):
        prompt = make_prompt(rng)
        ids, _ = encode_chat(tokenizer, prompt.text, "")
        out = model.generate(
            torch.tensor([ids[:-1]]), do_sample=True, top_k=0, temperature=1.0, max_new_tokens=48
        )
        reply = tokenizer.decode(out[0, len(ids) - 1 :], skip_special_tokens=True)
        scores.append((prompt.text, reply, score(prompt.text, reply)))
    for prompt_text, reply, _ in scores[:5]:
        print(f"  {prompt_text} -> {reply}")
    for name in (*vars(scores[0][2]), "preferred"):
        print(f"{name} {sum(getattr(s, name) for *_, s in scores) / n:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=assets().model)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.out)
    model = LlamaForCausalLM(model_config(tokenizer))
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    train(model, tokenizer, args)
    save(model, args.out)
    report(model, tokenizer)


if __name__ == "__main__":
    main()
