"""From pairs to token ids: which tokens are the shared prompt, and which are scored.

A conversation is rendered by the chat template; a text is prompt + completion with the tokenizer's
leading tokens (BOS) and EOS added once. Each side is tokenised as a whole. The shared prompt is the
longest common prefix of the tokenised prompt, the chosen side and the rejected side. Every token
after it is scored, the end of turn and what the template writes after that included (often a line
break), so that ids and |y| are those of the rendered text.
"""

from collections.abc import Sequence
from itertools import chain

from fpo_core.config.inputs import DataConfig, Truncation
from fpo_core.data.rendering import Renderer, observations
from fpo_core.data.report import DROPS, SplitReport
from fpo_core.data.token_store import Packed, pack
from fpo_core.data.tokenizer import Tokenizer, leading_ids, special_ids
from fpo_core.data.truncate import Budget, Ids
from fpo_core.io.foreign_text import check_unicode
from fpo_core.pairs.messages import text_of
from fpo_core.pairs.pair import Pair

Sides = tuple[Ids, Ids, Ids]
"""(prompt, chosen completion, rejected completion) as token ids."""


DATE = "2024-07-26"
"""What chat templates write as today's date: Llama's own where it knows none."""
_LEAST_IMPLICIT = 4
"""Fewer shared tokens of text are a chance of wording, as "The answer is", and no prompt."""
_LONGEST_BLANK = 2
"""Tokens of white space that may follow an end of turn."""


class PairTokeniser:
    """Tokenises pairs with one tokenizer and one token budget; `date` is that of the templates."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_seq_length: int,
        max_prompt_length: int | None = None,
        date: str | None = None,
        truncation: Truncation = DataConfig.truncation,
    ) -> None:
        special = special_ids(tokenizer)
        self._tokenizer = tokenizer
        self._leading = leading_ids(tokenizer)
        self._eos = list(special["eos"])
        self._ends = frozenset(special["end_of_turn"] + special["eos"])
        self._special = frozenset(tokenizer.all_special_ids)
        self._renderer = Renderer(tokenizer, self._ends, date or DATE)
        bounds = (max_seq_length, max_prompt_length, truncation)
        self._budget = Budget(*bounds, special["bos"], self._ends)

    def __call__(self, pairs: Sequence[Pair]) -> tuple[Packed, SplitReport]:
        """The usable pairs, packed, and a report on all.

        Raises DataError, with the row, where the chat template refuses a conversation.
        """
        report = SplitReport(read=len(pairs))
        if not self._tokenizer.chat_template:
            pairs = [pair.as_text() if pair.dialogue else pair for pair in pairs]
        # One call for all texts of the chunk: a fast tokenizer is far slower text by text.
        texts = list(chain.from_iterable(self._renderer.texts(pair, report) for pair in pairs))
        for i, text in enumerate(texts):
            check_unicode(text, pairs[i // 3].where)
        ids = self._encode(texts)
        usable = []
        for i, pair in enumerate(pairs):
            report.note_columns(pair)
            prompt, chosen, rejected = ids[3 * i : 3 * i + 3]
            sides = self._sides(pair, prompt, chosen, rejected, report)
            if sides is not None:
                report.keep(*map(len, sides))
                for issue, about in chain(pair.notes, observations(pair)):
                    report.note(issue, f"{pair.where}: {about}" if about else pair.where)
                usable.append((pair.row, *sides))
        return pack(usable), report

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
        """`ids` with EOS, unless the text ends with that or an end of turn, and white space."""
        for back in range(1, min(_LONGEST_BLANK + 1, len(ids)) + 1):
            if ids[-back] in self._ends:
                blank = not self._tokenizer.decode(ids[len(ids) - back + 1 :]).strip()
                return ids if blank else [*ids, *self._eos]
        return [*ids, *self._eos]

    def _fit(
        self, pair: Pair, prompt: Ids, chosen: Ids, rejected: Ids, report: SplitReport
    ) -> Sides | None:
        problem = self._problem(pair, prompt, chosen, rejected)
        if problem is None:
            return self._cut(pair, prompt, chosen, rejected, report)
        report.note(problem, pair.where)
        return None

    def _problem(self, pair: Pair, prompt: Ids, chosen: Ids, rejected: Ids) -> str | None:
        noted = next((issue for issue, _ in pair.notes if issue in DROPS), None)
        if noted is not None:
            return noted
        if list(chosen) == list(rejected):
            return "identical"
        if not len(chosen) or not len(rejected):
            return "empty"
        words = sum(id_ not in self._special for id_ in prompt)
        if not words or not text_of(pair.split()[0]).strip():
            return "no_prompt"
        implicit = pair.prompt is None and not pair.is_conversation
        return "short_prompt" if implicit and words < _LEAST_IMPLICIT else None

    def _cut(
        self, pair: Pair, prompt: Ids, chosen: Ids, rejected: Ids, report: SplitReport
    ) -> Sides | None:
        budget = self._budget
        longest = max(len(chosen), len(rejected))
        size = budget.prompt_length(len(prompt), longest)
        room = budget.max_seq_length - size
        cut = [budget.cut_completion(ids, room) for ids in (chosen, rejected)]
        if cut[0] is None or cut[1] is None:
            report.note("too_long" if budget.truncation == "drop" else "no_room", pair.where)
            return None
        if list(cut[0]) == list(cut[1]):
            report.note("identical", pair.where)
            return None
        if size < len(prompt):
            report.note("prompt_cut", pair.where)
        if longest > room:
            keeps_end = budget.truncation == "keep-end"
            report.note("completion_cut" if keeps_end else "completion_open", pair.where)
        return budget.cut_prompt(prompt, size), cut[0], cut[1]


def common_prefix(a: Ids, b: Ids) -> int:
    """Length of the common prefix of `a` and `b`."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size
    return next(i for i in range(size) if a[i] != b[i])
