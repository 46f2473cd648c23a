"""A judge behind an OpenAI-compatible endpoint, which sees every pair in both orders."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from fpo_core.errors import JudgeError
from fpo_core.events import Sink, progress, silent
from fpo_core.judges.chat_client import ChatClient, NoReplyError
from fpo_core.judges.judge import NO_VERDICT, ScoringJudge, Texts
from fpo_core.judges.reply_file import ReplyFile, reply_key
from fpo_core.judges.templates import Reply, Template

_TOP = 10
"""Likeliest first tokens asked for: mlx_lm's server gives no more."""
_HOPELESS = 10
"""Questions in a row without any reply after which a run gives up."""
_CHARS_PER_TOKEN = 4


@dataclass(frozen=True)
class Cost:
    """What is left to ask, before anything is asked."""

    calls: int
    tokens_in: int
    """About so many, at four characters a token."""
    tokens_out: int
    """At most."""

    def price(self, of_in: float, of_out: float) -> float:
        """In the currency of prices for a million tokens."""
        return (self.tokens_in * of_in + self.tokens_out * of_out) / 1e6


@dataclass(frozen=True)
class Orders:
    """Preferences for A: with A first, and with B first."""

    first: list[float]
    second: list[float]

    def means(self) -> list[float]:
        """Both orders' mean; NaN where either has no verdict, which would leave its bias in."""
        return [(a + b) / 2 for a, b in zip(self.first, self.second, strict=True)]

    def disagreement(self) -> float:
        """Share of pairs whose two orders prefer different answers; NaN without any pair."""
        pairs = [
            (a, b) for a, b in zip(self.first, self.second, strict=True) if not math.isnan(a + b)
        ]
        swapped = sum((a - 0.5) * (b - 0.5) < 0 for a, b in pairs)
        return swapped / len(pairs) if pairs else math.nan


class EndpointJudge(ScoringJudge):
    """Compares or grades by a `Template`; replies are kept in a file and asked for once."""

    def __init__(
        self,
        client: Callable[[], ChatClient],
        model: str,
        template: Template,
        replies: ReplyFile,
        *,
        server: str = "",
        concurrency: int = 8,
        sink: Sink = silent,
    ) -> None:
        """Replies are kept by `server` too: a model's name may mean another one elsewhere."""
        self.name = f"{model} ({template.name})"
        self.compares = template.compares
        self._client, self._model, self._template = client, model, template
        self._replies, self._concurrency, self._sink = replies, concurrency, sink
        self._server = server.rstrip("/")

    def score(self, prompts: Texts, completions: Texts) -> list[float]:
        """Grades from 1 to 10. Raises JudgeError where the template compares."""
        return self._verdicts(self._graded(prompts, completions))

    def prefer(self, prompts: Texts, a: Texts, b: Texts) -> list[float]:
        """The mean of both orders; of a template that grades, what the grades say."""
        return (
            self.orders(prompts, a, b).means() if self.compares else super().prefer(prompts, a, b)
        )

    def orders(self, prompts: Texts, a: Texts, b: Texts) -> Orders:
        """What each order says. Equal answers tie, and nobody is asked."""
        alike = [left == right for left, right in zip(a, b, strict=True)]
        verdicts = self._verdicts(self._compared(prompts, a, b))
        first, second = verdicts[::2], [1 - v for v in verdicts[1::2]]
        ties = {i: 0.5 for i, same in enumerate(alike) if same}
        places = [i for i, same in enumerate(alike) if not same]
        return Orders(
            *(
                [(ties | dict(zip(places, side, strict=True)))[i] for i in range(len(alike))]
                for side in (first, second)
            )
        )

    def _graded(self, prompts: Texts, completions: Texts) -> list[dict[str, str]]:
        if self.compares:
            raise JudgeError(
                f"the template {self._template.name} compares two answers and grades none: give "
                "answers to compare with, or the template mt-bench"
            )
        pairs = zip(prompts, completions, strict=True)
        return [{"prompt": p, "answer": c} for p, c in pairs]

    def _compared(self, prompts: Texts, a: Texts, b: Texts) -> list[dict[str, str]]:
        """Both orders of each pair that differs, one after the other."""
        rows = [row for row in zip(prompts, a, b, strict=True) if row[1] != row[2]]
        return [
            {"prompt": prompt, "a": left, "b": right}
            for prompt, x, y in rows
            for left, right in ((x, y), (y, x))
        ]

    def cost(self, prompts: Texts, a: Texts, b: Texts | None = None) -> Cost:
        """What judging would ask beyond the replies there are. Raises JudgeError as `score`."""
        if b is not None and self.compares:
            texts = self._compared(prompts, a, b)
        else:
            sides = (a,) if b is None else (a, b)
            texts = [text for side in sides for text in self._graded(prompts, side)]
        absent = self._absent(map(self._request, texts))
        said = sum(len(m["content"]) for r in absent.values() for m in r["messages"])
        written = self._template.max_tokens * len(absent)
        return Cost(len(absent), -(-said // _CHARS_PER_TOKEN), written)

    def _request(self, texts: Mapping[str, str]) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._model,
            "messages": self._template.messages(texts),
            "temperature": 0,
            "max_tokens": self._template.max_tokens,
        }
        if self._template.reply == "letter":
            request |= {"logprobs": True, "top_logprobs": _TOP}
        return request

    def _again(self, request: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
        """The same question after a reply that could not be read."""
        more = [
            {"role": "assistant", "content": reply.text},
            {"role": "user", "content": self._template.reminder},
        ]
        return {**request, "messages": [*request["messages"], *more]}

    def _verdicts(self, texts: Sequence[Mapping[str, str]]) -> list[float]:
        requests = [self._request(text) for text in texts]
        self._ask(requests)
        unread = [r for r in requests if self._unread(r)]
        self._ask([self._again(r, reply) for r in unread if (reply := self._reply(r))])
        return [self._verdict(request) for request in requests]

    def _unread(self, request: Mapping[str, Any]) -> bool:
        reply = self._reply(request)
        return reply is not None and math.isnan(self._template.read(reply))

    def _reply(self, request: Mapping[str, Any]) -> Reply | None:
        return self._replies.get(self._key(request))

    def _key(self, request: Mapping[str, Any]) -> str:
        return reply_key({**request, "server": self._server})

    def _verdict(self, request: Mapping[str, Any]) -> float:
        reply = self._reply(request)
        if reply is None:
            return NO_VERDICT
        value = self._template.read(reply)
        if math.isnan(value):
            second = self._reply(self._again(request, reply))
            return NO_VERDICT if second is None else self._template.read(second)
        return value

    def _absent(self, requests: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        by_key = {self._key(request): request for request in requests}
        return {key: r for key, r in by_key.items() if self._replies.get(key) is None}

    def _ask(self, requests: Iterable[dict[str, Any]]) -> None:
        """Ask what is not known yet. Raises JudgeError where nothing is answered any more."""
        absent = self._absent(requests)
        if not absent:
            return
        client = self._client()
        with self._replies.open(), ThreadPoolExecutor(self._concurrency) as pool:
            futures = {pool.submit(client.ask, request): key for key, request in absent.items()}
            silence = 0
            try:
                for done, future in enumerate(as_completed(futures), 1):
                    try:
                        self._replies.add(futures[future], future.result())
                        silence = 0
                    except NoReplyError as error:
                        silence = self._after_silence(silence + 1, len(absent), error)
                    progress(self._sink, "verdicts", done, len(absent))
            finally:
                # Also on Ctrl-C: what was answered is in the file, the rest is asked next time.
                client.close()
                pool.shutdown(wait=True, cancel_futures=True)

    def _after_silence(self, silence: int, total: int, error: NoReplyError) -> int:
        if silence >= min(_HOPELESS, total):
            raise JudgeError(
                f"{self.name} gave no reply to {silence} questions in a row ({error}): see whether "
                "the server runs, then start again; replies so far are kept"
            ) from None
        return silence
