"""Cutting a pair to a token budget, and what becomes of a completion that does not fit."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fpo_core.config.inputs import Truncation
from fpo_core.errors import ConfigError

_LONGEST_TAIL = 8
"""An end of turn further than this from the end belongs to an earlier message."""

Ids = Sequence[int]


@dataclass(frozen=True)
class Budget:
    """Token budgets, and the ids that must survive a cut.

    `max_prompt_length` caps every prompt. Without it a prompt is cut only where the pair is too
    long, and not below half of `max_seq_length`. Prompts are cut before completions. A cut prompt
    retains its BOS, which many models use as an attention sink, and its right end. A cut completion
    retains its beginning; under `keep-end` its end of turn too, with what the template writes after
    it.
    """

    max_seq_length: int
    max_prompt_length: int | None = None
    truncation: Truncation = "keep-end"
    bos: tuple[int, ...] = ()
    ends: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.max_prompt_length is not None and self.max_prompt_length >= self.max_seq_length:
            raise ConfigError(
                f"max_prompt_length is {self.max_prompt_length}, expected less than "
                f"max_seq_length, which is {self.max_seq_length}"
            )

    def prompt_length(self, prompt: int, longest: int) -> int:
        """Tokens left to a prompt whose longer completion has `longest` tokens."""
        cap = prompt if self.max_prompt_length is None else self.max_prompt_length
        floor = self.max_prompt_length or self.max_seq_length // 2
        return min(prompt, cap, max(self.max_seq_length - longest, floor))

    def cut_prompt(self, prompt: Ids, length: int) -> Ids:
        """The last `length` ids of a prompt, the first of them replaced by its BOS."""
        if len(prompt) <= length:
            return prompt
        if length > 1 and prompt[0] in self.bos:
            return [prompt[0], *prompt[len(prompt) - length + 1 :]]
        return prompt[len(prompt) - length :]

    def cut_completion(self, completion: Ids, length: int) -> Ids | None:
        """`completion` in at most `length` ids; None where nothing but its end of turn would fit,
        or where it must be whole.
        """
        if len(completion) <= length:
            return completion
        if self.truncation != "keep-end":
            return completion[:length] if self.truncation == "cut" and length > 0 else None
        tail = self._tail(completion)
        if len(tail) >= length:
            return None
        return [*completion[: length - len(tail)], *tail]

    def _tail(self, completion: Ids) -> Ids:
        for back in range(1, min(_LONGEST_TAIL, len(completion)) + 1):
            if completion[-back] in self.ends:
                return completion[-back:]
        return []
