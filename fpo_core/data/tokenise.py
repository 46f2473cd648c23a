"""From pairs to token ids: which tokens are the shared prompt, and which are scored.

A conversation is rendered by the chat template; a text is prompt + completion with the tokenizer's
leading tokens (BOS) and EOS added once. Each side is tokenised as a whole. The shared prompt is the
longest common prefix of the tokenised prompt, the chosen side and the rejected side. Every token
after it is scored, the end of turn and what the template writes after that included (often a line
break), so that ids and |y| are those of the rendered text.
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
    """Tokenises pairs with one tokenizer and one token budget."""

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
        """The usable pairs, packed, and a report on all.

        Raises DataError, with the row, where the chat template refuses a conversation.
        """
        report = SplitReport(read=len(pairs))
        # One call for all texts of the chunk: a fast tokenizer is far slower text by text.
        texts = list(chain.from_iterable(self._texts(pair) for pair in pairs))
        for i, text in enumerate(texts):
            _check_unicode(text, pairs[i // 3].where)
        ids = self._encode(texts)
        usable = []
        for i, pair in enumerate(pairs):
            prompt, chosen, rejected = ids[3 * i : 3 * i + 3]
            sides = self._sides(pair, prompt, chosen, rejected, report)
            if sides is not None:
                report.keep(*map(len, sides))
                usable.append((pair.row, *sides))
        return pack(usable), report

    def _texts(self, pair: Pair) -> tuple[str, str, str]:
        """The prompt, and prompt + completion of each side, as rendered text."""
        prompt, *completions = pair.split()
        if isinstance(prompt, str):
            return prompt, f"{prompt}{completions[0]}", f"{prompt}{completions[1]}"
        chosen, rejected = (
            self._render(pair, [*prompt, *messages], generation_prompt=False)
            for messages in completions
        )
        opening = self._render(pair, prompt, generation_prompt=True) if prompt else ""
        return opening, chosen, rejected

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
        # A chat template writes BOS itself; `_begin` adds it to plain texts.
        encoded = self._tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return encoded.input_ids

    def _sides(
        self, pair: Pair, prompt: Ids, chosen: Ids, rejected: Ids, report: SplitReport
    ) -> Sides | None:
        """Prompt and completions within the budget, or None where the pair is unusable."""
        if not pair.is_conversation:
            prompt = self._begin(prompt)
            chosen, rejected = (self._end(self._begin(ids)) for ids in (chosen, rejected))
        if pair.prompt is None and not pair.is_conversation:
            prompt = chosen[: common_prefix(chosen, rejected)]
        # A tokenizer may merge the end of the prompt with the start of a completion: only tokens
        # that all three have in common are prompt.
        shared = min(common_prefix(prompt, chosen), common_prefix(prompt, rejected))
        if shared < len(prompt):
            report.note("not_prefix", pair.where)
        return self._fit(pair, chosen[:shared], chosen[shared:], rejected[shared:], report)

    def _begin(self, ids: Ids) -> Ids:
        """`ids` with the tokenizer's leading ids, unless the text already contains them."""
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
    """JSON can hold half of a surrogate pair, which no tokenizer accepts."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: the text is not valid Unicode ({error}): fix the row") from None


def common_prefix(a: Ids, b: Ids) -> int:
    """Length of the common prefix of `a` and `b`."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size
    return next(i for i in range(size) if a[i] != b[i])
