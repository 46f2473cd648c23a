"""Tokenise many synthetic pairs: rows per second, cores in use, and how far memory grows.

Run: python -m benchmarks.bench_tokenise [--rows 500000]
"""

import argparse
import json
import os
import random
import resource
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.record import write_result
from fpo_core.config import DataConfig
from fpo_core.data.load import load_data

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MIB = 2**20


def sentences(count: int) -> list[str]:
    rng = random.Random(0)
    syllables = [c + v for c in "bdfgklmnprst" for v in "aeiou"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(3000)]
    return [" ".join(rng.choices(words, k=rng.randint(6, 14))) + "." for _ in range(count)]


def build_tokenizer(texts: list[str]):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_rows(path: Path, count: int, texts: list[str]) -> None:
    rng = random.Random(1)

    def message(role: str, most: int) -> list[dict[str, str]]:
        return [{"role": role, "content": " ".join(rng.choices(texts, k=rng.randint(1, most)))}]

    with path.open("w") as file:
        for _ in range(count):
            sides = {side: message("assistant", 6) for side in ("chosen", "rejected")}
            file.write(json.dumps({"prompt": message("user", 8)} | sides) + "\n")


class Memory(threading.Thread):
    """Samples (time, resident bytes of this process, of its children) from `ps`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, int, int]] = []
        self._done = threading.Event()

    def run(self) -> None:
        """Sample twice a second until stopped."""
        while not self._done.wait(0.5):
            self.samples.append((time.perf_counter(), *resident()))

    def stop(self) -> None:
        """Take no more samples."""
        self._done.set()
        self.join()


def resident() -> tuple[int, int]:
    """Resident bytes of this process, and of its children."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,rss=,comm="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 3) for line in listed.stdout.splitlines()]
    me = str(os.getpid())
    main = sum(int(rss) for pid, _, rss, _ in rows if pid == me)
    children = sum(int(rss) for _, ppid, rss, name in rows if ppid == me and name.strip() != "ps")
    return main * 1024, children * 1024


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(folder: Path, rows: int, workers: int | None) -> dict[str, float]:
    texts = sentences(2000)
    tokenizer = build_tokenizer(texts)
    data, warm = folder / "pairs.jsonl", folder / "warm.jsonl"
    write_rows(warm, 500, texts)
    load_data(DataConfig(data=str(warm), cache=str(folder)), tokenizer, workers=1)
    write_rows(data, rows, texts)
    before = resident()[0]
    memory, began, cpu = Memory(), time.perf_counter(), cpu_seconds()
    memory.start()
    config = DataConfig(data=str(data), cache=str(folder))
    split = load_data(config, tokenizer, workers=workers).report.splits["train"]
    seconds = time.perf_counter() - began
    memory.stop()
    used = cpu_seconds() - cpu
    again = time.perf_counter()
    assert load_data(config, tokenizer).report.cached
    from_cache = time.perf_counter() - again
    main, children = (max(sample[i] for sample in memory.samples) for i in (1, 2))
    both = [(at - began, main + children) for at, main, children in memory.samples]
    early = next(total for at, total in both if at > 0.1 * seconds)
    return {
        "rows": split.kept,
        "tokens_encoded": 2 * split.prompt_tokens + split.tokens,
        "tokens_stored": split.tokens,
        "file_mib": data.stat().st_size / MIB,
        "seconds": seconds,
        "rows_per_second": split.kept / seconds,
        "cores_busy": used / seconds,
        "seconds_from_cache": from_cache,
        "main_before_mib": before / MIB,
        "main_growth_mib": (main - before) / MIB,
        "processes_peak_mib": children / MIB,
        "all_growth_after_first_tenth_mib": (max(total for _, total in both) - early) / MIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), options.rows, options.workers)
    for name, value in measured.items():
        print(f"{name:>34}  {value:>14,.1f}")
    write_result("tokenise", {"measured": {k: round(v, 2) for k, v in measured.items()}})


if __name__ == "__main__":
    main()
