"""Fitting a pair into a token budget without losing what ends a completion."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fpo_core.errors import ConfigError

_LONGEST_TAIL = 8
"""An end of turn further than this from the end is that of an earlier message, not the last."""

Ids = Sequence[int]


@dataclass(frozen=True)
class Budget:
    """Token budgets, and the ids that survive a cut.

    `max_prompt_length` caps every prompt. Without it a prompt is shortened only where the pair
    is too long, and not below half of `max_seq_length`. The prompt gives way first, then
    completions; a cut prompt keeps its BOS (models lean on it) and its right end, shared by both
    sides. A cut completion keeps its beginning and its end of turn with what the template writes
    after it.
    """

    max_seq_length: int
    max_prompt_length: int | None = None
    bos: tuple[int, ...] = ()
    ends: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.max_prompt_length is not None and self.max_prompt_length >= self.max_seq_length:
            raise ConfigError(
                f"max_prompt_length is {self.max_prompt_length}, expected less than "
                f"max_seq_length, which is {self.max_seq_length}"
            )

    def prompt_length(self, prompt: int, longest: int) -> int:
        """Tokens that a prompt keeps beside completions of at most `longest` tokens."""
        cap = prompt if self.max_prompt_length is None else self.max_prompt_length
        floor = self.max_prompt_length or self.max_seq_length // 2
        return min(prompt, cap, max(self.max_seq_length - longest, floor))

    def cut_prompt(self, prompt: Ids, length: int) -> Ids:
        """The last `length` ids of a prompt, its BOS in place of the first of them."""
        if len(prompt) <= length:
            return prompt
        if length > 1 and prompt[0] in self.bos:
            return [prompt[0], *prompt[len(prompt) - length + 1 :]]
        return prompt[len(prompt) - length :]

    def cut_completion(self, completion: Ids, length: int) -> Ids | None:
        """`completion` in at most `length` ids, or None where nothing but its end would be left."""
        if len(completion) <= length:
            return completion
        tail = self._tail(completion)
        if len(tail) >= length:
            return None
        return [*completion[: length - len(tail)], *tail]

    def _tail(self, completion: Ids) -> Ids:
        for back in range(1, min(_LONGEST_TAIL, len(completion)) + 1):
            if completion[-back] in self.ends:
                return completion[-back:]
        return []
