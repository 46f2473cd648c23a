"""The part of a model card that shows how to run the result, and how it came to be."""

from collections.abc import Mapping, Sequence
from typing import Any

from fpo_core.io.foreign_text import for_markdown

_QUESTION = '[{"role": "user", "content": "Hello"}]'
_ANSWER = f"""ids = tokenizer.apply_chat_template(
    {_QUESTION}, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=64)[0]))"""
_PLAIN = """ids = tokenizer("Hello", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=64)[0]))"""


def usage(
    base: str, result: str, *, adapter: bool, chat: bool = True, mlx: bool = True
) -> list[str]:
    """Code that runs a result with PEFT or transformers, and with mlx-lm where it opens it.

    `base` and `result` are hub names, or what stands for a folder.
    """
    answer = _ANSWER if chat else _PLAIN
    model = base if adapter else result
    load = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({model!r})",
        f"model = AutoModelForCausalLM.from_pretrained({model!r})",
    ]
    if adapter:
        load[0] = f"from peft import PeftModel\n{load[0]}"
        load.append(f"model = PeftModel.from_pretrained(model, {result!r})")
    options = f"--model {base} --adapter-path {result}" if adapter else f"--model {result}"
    lines = [
        f"With {'PEFT' if adapter else 'transformers'}:",
        "",
        "```python",
        *load,
        answer,
        "```",
    ]
    if not mlx:
        return lines
    return [
        *lines,
        "",
        "With mlx-lm"
        + (", whose adapter must be a folder on disk (`hf download`):" if adapter else ":"),
        "",
        "```sh",
        f'mlx_lm.generate {options} --prompt "Hello"',
        "```",
    ]


def provenance(command: str, versions: Mapping[str, str | None]) -> list[str]:
    """The command that made a result, without its private paths, and what it ran with."""
    installed = ", ".join(f"{name} {value}" for name, value in versions.items() if value)
    return ["```sh", command, "```", "", f"With {installed}."]


def answered(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Greedy answers before and after, of the shape of `greedy_answers.compared`."""
    cells = (
        [_marked(sample, name) for name in ("prompt", "before", "after")] for sample in samples
    )
    rows = [f"| {' | '.join(row)} |" for row in cells]
    head = ["Greedy, ✓ where the right answer is known and given, ✗ where not.", ""]
    return [*head, "| prompt | before | after |", "|---|---|---|", *rows] if rows else []


def _marked(sample: Mapping[str, Any], side: str) -> str:
    right = sample.get(f"right_{side}")
    mark = "" if right is None else "✓ " if right else "✗ "
    return mark + for_markdown(str(sample.get(side, "")))


def judged(verdict: Sequence[str]) -> list[str]:
    """The verdict of a run as a list."""
    return [f"- {line}" for line in verdict]
