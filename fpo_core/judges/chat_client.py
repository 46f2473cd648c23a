"""A client of OpenAI-compatible chat completions: retries, pauses that servers ask for, secrets."""

import email.utils
import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fpo_core.errors import JudgeError, shorten
from fpo_core.judges.templates import Reply

if TYPE_CHECKING:
    import httpx

_LONGEST_PAUSE = 120.0
_REFUSED = {401, 402, 403, 404, 405}
"""Answers of a server that no question changes."""
_UNFIT = {400, 413, 422}
"""Those that another attempt does not change, while another question may: it was too long, say."""


class NoReplyError(Exception):
    """Every attempt at a question failed; the message says how the last one did."""


class RefusedQuestionError(NoReplyError):
    """The server refused this question, so that it is not asked again."""


@dataclass(frozen=True)
class Attempts:
    """How patient a client is."""

    timeout: float
    """Seconds to wait for a server."""
    retries: int
    first_pause: float = 1.0
    """Seconds before the second attempt; twice as long before each further one."""


class ChatClient:
    """Asks one server, from any number of threads."""

    def __init__(self, url: str, key: str | None, attempts: Attempts) -> None:
        """`key` goes into a header and nowhere else."""
        import httpx

        self._url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self._key, self._attempts = key, attempts
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        # Each read may last `timeout`; a server that sends a byte a minute would be endless, so
        # that the whole answer has a limit too (`_post`).
        self._http = httpx.Client(headers=headers, timeout=attempts.timeout)
        self._not_before = 0.0
        self._logprobs = True
        self._stopped = threading.Event()

    def close(self) -> None:
        """End pauses and connections."""
        self._stopped.set()
        self._http.close()

    def ask(self, request: Mapping[str, Any]) -> Reply:
        """The reply to one request.

        Raises NoReplyError where every attempt failed, JudgeError where none can succeed.
        """
        reason = "it was not asked"
        for attempt in range(self._attempts.retries + 1):
            if attempt:
                self._pause(self._attempts.first_pause * 2 ** (attempt - 1))
            self._wait()
            try:
                return self._once(request)
            except RefusedQuestionError:
                raise
            except NoReplyError as error:
                reason = str(error)
        raise NoReplyError(reason)

    def _once(self, request: Mapping[str, Any]) -> Reply:
        import httpx

        body = dict(request)
        if not self._logprobs:
            body = {k: v for k, v in body.items() if k not in ("logprobs", "top_logprobs")}
        try:
            response = self._post(body)
        except httpx.HTTPError as error:
            raise NoReplyError(f"{type(error).__name__}: {self._safe(shorten(error))}") from None
        if response.status_code == 400 and "logprobs" in body:
            # Some servers refuse to give probabilities: their letters will do.
            plain = {k: v for k, v in body.items() if k not in ("logprobs", "top_logprobs")}
            reply = self._once(plain)
            self._logprobs = False
            return reply
        if response.status_code in _REFUSED:
            raise JudgeError(
                f"{self._url} refused with {response.status_code} ({self._said(response)}), "
                "expected a chat completion: check the URL, judge_model and the key"
            )
        if response.status_code in _UNFIT:
            raise RefusedQuestionError(f"status {response.status_code} ({self._said(response)})")
        if response.status_code != 200:
            self._heed(response)
            raise NoReplyError(f"status {response.status_code} ({self._said(response)})")
        return self._reply(response)

    def _post(self, body: Mapping[str, Any]) -> "httpx.Response":
        import httpx

        limit = time.monotonic() + 2 * self._attempts.timeout
        with self._http.stream("POST", self._url, json=body) as response:
            pieces = []
            for piece in response.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > limit:
                    raise httpx.ReadTimeout("the answer took too long")
        return httpx.Response(
            response.status_code, headers=_plain(response.headers), content=b"".join(pieces)
        )

    def _reply(self, response: "httpx.Response") -> Reply:
        try:
            choice = json.loads(response.content)["choices"][0]
            text = choice["message"].get("content") or ""
            if not isinstance(text, str):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise NoReplyError(f"no chat completion ({self._said(response)})") from None
        return Reply(self._safe(text), _letters(choice))

    def _heed(self, response: "httpx.Response") -> None:
        """Hold all threads back for as long as the server asks."""
        seconds = _retry_after(response.headers.get("retry-after"))
        if seconds is not None:
            pause = min(seconds, _LONGEST_PAUSE)
            self._not_before = max(self._not_before, time.monotonic() + pause)

    def _wait(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0:
            self._pause(left)

    def _pause(self, seconds: float) -> None:
        # Some more, at random: threads that failed together would come again together.
        if self._stopped.wait(min(seconds, _LONGEST_PAUSE) * (1 + 0.25 * random.random())):
            raise NoReplyError("the run was stopped")

    def _said(self, response: "httpx.Response") -> str:
        text = " ".join(response.text.split())
        return self._safe(text[:200]) or "nothing said"

    def _safe(self, text: str) -> str:
        """The text without the key, should a server repeat it."""
        return text.replace(self._key, "[key]") if self._key else text


def _plain(headers: Any) -> dict[str, str]:
    """Headers of a body that has been decoded already."""
    return {
        k: v
        for k, v in headers.items()
        if k.lower() not in ("content-encoding", "content-length", "transfer-encoding")
    }


def _letters(choice: Mapping[str, Any]) -> dict[str, float] | None:
    """Log-probabilities of the first token, by text; None where the server gives none."""
    try:
        first = choice["logprobs"]["content"][0]["top_logprobs"]
        return {str(item["token"]): float(item["logprob"]) for item in first} or None
    except (LookupError, TypeError, ValueError):
        return None


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds them or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
