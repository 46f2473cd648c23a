"""From pairs to token ids: which tokens are the shared prompt, and which are scored.

A conversation is what the chat template writes of all its messages; a text is prompt + completion,
with the tokenizer's own beginning (BOS) once and EOS once. Both sides are tokenised whole. The
shared prompt is the longest beginning that the tokenised prompt, the chosen side and the rejected
side have in common; every token after it is scored: the end of turn, and what the template writes
behind it (a line break, often), so that ids and |y| are those of the whole rendered text.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from fpo_core.data.pairs import Pair
from fpo_core.data.report import SplitReport
from fpo_core.data.token_store import Packed, pack
from fpo_core.data.tokenizer import Tokenizer, leading_ids, render, special_ids
from fpo_core.data.truncate import Budget, Ids
from fpo_core.errors import DataError

Sides = tuple[Ids, Ids, Ids]
"""(prompt, chosen completion, rejected completion) as token ids."""


class PairTokeniser:
    """Makes token ids of pairs with one tokenizer and one token budget."""

    def __init__(
        self, tokenizer: Tokenizer, max_seq_length: int, max_prompt_length: int | None = None
    ) -> None:
        special = special_ids(tokenizer)
        self._tokenizer = tokenizer
        self._leading = leading_ids(tokenizer)
        self._eos = list(special["eos"])
        ends = frozenset(special["end_of_turn"] + special["eos"])
        self._budget = Budget(max_seq_length, max_prompt_length, special["bos"], ends)

    def __call__(self, pairs: Sequence[Pair]) -> tuple[Packed, SplitReport]:
        """The pairs that can be used, packed, and what became of all of them.

        Raises DataError, naming the row, where the chat template refuses one.
        """
        report = SplitReport(read=len(pairs))
        texts = list(chain.from_iterable(self._texts(pair) for pair in pairs))
        for i, text in enumerate(texts):
            _check_unicode(text, pairs[i // 3].where)
        ids = self._encode(texts)
        kept = []
        for i, pair in enumerate(pairs):
            prompt, chosen, rejected = ids[3 * i : 3 * i + 3]
            sides = self._usable(pair, prompt, chosen, rejected, report)
            if sides is not None:
                report.keep(*map(len, sides))
                kept.append((pair.row, *sides))
        return pack(kept), report

    def _texts(self, pair: Pair) -> tuple[str, str, str]:
        """The prompt, and prompt + completion of each side, as text for the tokenizer."""
        prompt, *completions = pair.split()
        if isinstance(prompt, str):
            return prompt, f"{prompt}{completions[0]}", f"{prompt}{completions[1]}"
        chosen, rejected = (
            self._render(pair, [*prompt, *messages], generation_prompt=False)
            for messages in completions
        )
        before = self._render(pair, prompt, generation_prompt=True) if prompt else ""
        return before, chosen, rejected

    def _render(self, pair: Pair, messages: list[Any], *, generation_prompt: bool) -> str:
        return render(
            self._tokenizer,
            messages,
            generation_prompt=generation_prompt,
            tools=pair.tools,
            kwargs=pair.chat_template_kwargs,
            where=pair.where,
        )

    def _encode(self, texts: list[str]) -> list[list[int]]:
        # The template has already written BOS; for texts it is put in front below.
        encoded = self._tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return encoded.input_ids

    def _usable(
        self, pair: Pair, prompt: Ids, chosen: Ids, rejected: Ids, report: SplitReport
    ) -> Sides | None:
        """The sides of a pair within the budget, or None where it cannot be used."""
        if not pair.is_conversation:
            prompt = self._begin(prompt)
            chosen, rejected = (self._end(self._begin(ids)) for ids in (chosen, rejected))
        if pair.prompt is None and not pair.is_conversation:
            prompt = chosen[: common_prefix(chosen, rejected)]
        shared = min(common_prefix(prompt, chosen), common_prefix(prompt, rejected))
        if shared < len(prompt):
            report.note("not_prefix", pair.where)
        return self._fit(pair, chosen[:shared], chosen[shared:], rejected[shared:], report)

    def _begin(self, ids: Ids) -> Ids:
        """`ids` behind the tokenizer's leading ids, unless the text has spelt them out."""
        size = len(self._leading)
        return ids if list(ids[:size]) == self._leading else [*self._leading, *ids]

    def _end(self, ids: Ids) -> Ids:
        return ids if list(ids[-1:]) == self._eos else [*ids, *self._eos]

    def _fit(
        self, pair: Pair, prompt: Ids, chosen: Ids, rejected: Ids, report: SplitReport
    ) -> Sides | None:
        problem = _problem(prompt, chosen, rejected)
        if problem is None:
            return self._cut(pair, prompt, chosen, rejected, report)
        report.note(problem, pair.where)
        return None

    def _cut(
        self, pair: Pair, prompt: Ids, chosen: Ids, rejected: Ids, report: SplitReport
    ) -> Sides | None:
        budget = self._budget
        longest = max(len(chosen), len(rejected))
        size = budget.prompt_length(len(prompt), longest)
        room = budget.max_seq_length - size
        cut = [budget.cut_completion(ids, room) for ids in (chosen, rejected)]
        if cut[0] is None or cut[1] is None:
            report.note("no_room", pair.where)
            return None
        if list(cut[0]) == list(cut[1]):
            report.note("identical", pair.where)
            return None
        if size < len(prompt):
            report.note("prompt_cut", pair.where)
        if longest > room:
            report.note("completion_cut", pair.where)
        return budget.cut_prompt(prompt, size), cut[0], cut[1]


def _problem(prompt: Ids, chosen: Ids, rejected: Ids) -> str | None:
    if list(chosen) == list(rejected):
        return "identical"
    if not len(chosen) or not len(rejected):
        return "empty"
    return None if len(prompt) else "no_prompt"


def _check_unicode(text: str, where: str) -> None:
    """JSON can hold half of a surrogate pair, which is no character: a tokenizer cannot take it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: the text is not valid Unicode ({error}): fix the row") from None


def common_prefix(a: Ids, b: Ids) -> int:
    """How many ids `a` and `b` share from their beginning."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size
    return next(i for i in range(size) if a[i] != b[i])
