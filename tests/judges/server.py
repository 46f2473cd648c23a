"""A chat-completions server on loopback, which answers as a test says."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SEPARATOR = "\x1e"
"""Between prompt, A and B where a test's template asks, so that the server can read them."""
Answer = Callable[[dict[str, Any], int], "str | bytes | Raw"]
"""From a request's body and its number, from 0: a completion's text, the bytes of a whole body, or
a `Raw` answer."""


class Raw:
    """An answer below the level of completions."""

    def __init__(
        self,
        status: int = 200,
        body: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        drop: bool = False,
        hang: float = 0.0,
    ) -> None:
        self.status, self.body, self.headers = status, body, headers or {}
        self.drop, self.hang = drop, hang


def completion(text: str, letters: dict[str, float] | None = None) -> bytes:
    """A body with one choice, and log-probabilities of its first token."""
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
    if letters is not None:
        top = [{"token": token, "logprob": value} for token, value in letters.items()]
        choice["logprobs"] = {"content": [{"token": text, "top_logprobs": top}]}
    return json.dumps({"choices": [choice]}).encode()


class Server:
    """What came in, and where."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.requests, self.headers = answer, [], []
        self.times: list[float] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer._lock:
                    number = len(outer.requests)
                    outer.requests.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.times.append(time.monotonic())
                    outer._now += 1
                    outer.most_at_once = max(outer.most_at_once, outer._now)
                try:
                    said = outer.answer(body, number)
                    said = completion(said) if isinstance(said, str) else said
                    raw = said if isinstance(said, Raw) else Raw(body=said)
                    time.sleep(raw.hang)
                finally:
                    # Before the reply is out: with it in hand, a client may send the next request.
                    with outer._lock:
                        outer._now -= 1
                self._send(raw)

            def _send(self, raw: Raw) -> None:
                if raw.drop:
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(raw.status)
                for name, value in {"Content-Length": str(len(raw.body)), **raw.headers}.items():
                    self.send_header(name, value)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.end_headers()
                    self.wfile.write(raw.body)

            def log_message(self, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """A server in a thread."""
    server = Server(answer)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def texts(body: dict[str, Any]) -> tuple[str, str, str]:
    """Prompt, A and B of a request by the test's template."""
    asked = next(m["content"] for m in body["messages"] if m["role"] == "user")
    return tuple(asked.split(SEPARATOR)[1:4])  # pyright: ignore[reportReturnType]
