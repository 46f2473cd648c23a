"""`fpo chat` on a pseudo-terminal and through a pipe; `fpo serve` by OpenAI's client."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fpo
from fpo.serving import _prepare
from fpo.world import assets
from fpo_core.events import Event, silent
from tests.ports import free_port

from .conftest import Fpo
from .terminal import Terminal

PROGRAM = """
import sys
sys.argv = ["fpo", *sys.argv[1:]]
from fpo_cli.main import main
main()
"""
QUESTION = "Is the old pencil a fair choice?"
BACKENDS = ("torch", "mlx")


@pytest.fixture(scope="module")
def adapter(shared: Path, sae: Path) -> Path:
    """A short run whose adapter changes answers."""
    run = fpo.train(
        model=assets().model,
        data=assets().pairs,
        sae=sae,
        output=shared / "talk",
        cache=str(shared / "cache"),
        max_rows=24,
        max_seq_length=64,
        iters=6,
        preset="none",
        learning_rate=0.02,
        beta=10,
        val_pairs=4,
        preflight=False,
        report=False,
        backend="torch",
        sink=silent,
    )
    return run.output


@pytest.fixture
def options(adapter: Path, sae: Path) -> list[str]:
    given = {"model": assets().model, "adapter": adapter, "sae": sae}
    given |= {"temperature": 0, "max-tokens": 24}
    return [str(part) for name, value in given.items() for part in (f"--{name}", value)]


def test_on_a_terminal(options: list[str]) -> None:
    terminal = Terminal(PROGRAM, 100, "chat", *options, "--backend", "torch")
    terminal.until("Ctrl-D ends")
    terminal.until("›")
    terminal.type(f"{QUESTION}\n")
    while sum(row.startswith("›") for row in terminal.screen.rows()) < 2:
        terminal.read()
    answered = terminal.screen.rows()
    assert any("pencil" in row or "crayon" in row for row in answered[2:])
    terminal.type("/compare\n")
    rows = terminal.until("└")
    assert any("talk" in row and "base" in row for row in rows)
    terminal.type("/features\n")
    terminal.until("promotes")
    terminal.type("/nothing\n")
    terminal.until("/nothing is no command")
    terminal.type("/reset\n")
    terminal.until("a new conversation")
    terminal.type("/quit\n")
    terminal.end()


@pytest.mark.parametrize("backend", BACKENDS)
def test_through_a_pipe(
    fpo: Fpo, options: list[str], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [QUESTION, "/features", "/compare", "/reset", "/features", QUESTION]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    ran = fpo("chat", *options, "--backend", backend, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["models"] == ["talk", "base"]
    roles = [message["role"] for message in ran.json["messages"]]
    assert roles == ["user", "assistant"]  # what was before the reset is forgotten
    assert "there is no reply yet" in ran.err
    assert "promotes" in ran.err


def test_both_backends_say_the_same(adapter: Path, sae: Path) -> None:
    conversations = [
        fpo.chat(
            model=assets().model,
            adapter=adapter,
            sae=(str(sae),),
            temperature=0,
            max_tokens=16,
            backend=backend,
        )
        for backend in BACKENDS
    ]
    texts = [talk.reply(QUESTION, silent).text for talk in conversations]
    assert texts[0] == texts[1]
    seen = [talk.features() for talk in conversations]
    assert [f.index for f in seen[0][:3]] == [f.index for f in seen[1][:3]]
    assert seen[0][0].mean == pytest.approx(seen[1][0].mean, rel=1e-3)
    both = conversations[0].compare(silent)
    assert both[0].text == texts[0] != both[1].text
    assert len(conversations[0].messages) == 2  # a comparison adds no turn
    follow_up = conversations[0].reply("And the new one?", silent)
    assert follow_up.text
    assert len(conversations[0].messages) == 4


def test_what_cannot_be_compared_is_said(sae: Path) -> None:
    talk = fpo.chat(model=assets().model, max_tokens=4, backend="torch")
    talk.reply("Hello", silent)
    with pytest.raises(fpo.ConfigError, match="there is one model here"):
        talk.compare(silent)
    with pytest.raises(fpo.ConfigError, match="sae is not set"):
        talk.features()


@pytest.mark.parametrize("backend", BACKENDS)
def test_serving_to_a_client(adapter: Path, backend: str) -> None:
    import openai

    port = free_port()
    server = fpo.serve(model=assets().model, adapter=adapter, backend=backend, port=port)
    assert server.models == ["default_model", "base"]
    texts = {}
    with server.running() as process:
        wait_for(port, process)
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
        for name in server.models:
            completion = client.chat.completions.create(
                model=name,
                messages=[{"role": "user", "content": QUESTION}],
                max_tokens=16,
                temperature=0,
            )
            texts[name] = completion.choices[0].message.content
    talk = fpo.chat(
        model=assets().model, adapter=adapter, temperature=0, max_tokens=16, backend=backend
    )
    talk.reply(QUESTION, silent)
    expected = [reply.text for reply in talk.compare(silent)]
    assert [texts["default_model"], texts["base"]] == expected
    assert process.poll() is not None


def test_a_server_computes_as_it_is_told_or_says_that_it_cannot(tmp_path: Path) -> None:
    told = {"model": assets().model, "dtype": "bfloat16", "seed": 3, "host": "::1"}
    server = fpo.serve(**told, backend="torch")
    assert server.url == "http://[::1]:8000/v1"
    command = " ".join(_prepare(tmp_path, "torch", server.config))
    assert "--dtype bfloat16 --default-seed 3" in command
    warnings: list[Event] = []
    fpo.serve(**told, backend="mlx", sink=warnings.append)
    assert "no dtype or seed: ignored" in warnings[-1].values["message"]


def test_a_server_ends_with_a_program_that_is_told_to_end(tmp_path: Path) -> None:
    """By SIGTERM, as service managers and containers do it."""
    stand_in, pid = tmp_path / "server.py", tmp_path / "pid"
    stand_in.write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(300)\n"
    )
    words = ["serve", "--backend", "torch", "--model", assets().model]
    patch = (
        "import sys, fpo.serving as s\n"
        f"s._prepare = lambda *_: [sys.executable, {str(stand_in)!r}]\n"
    )
    process = subprocess.Popen([sys.executable, "-c", patch + PROGRAM, *map(str, words)])
    try:
        deadline = time.monotonic() + 120
        while not (pid.exists() and pid.read_text()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server = int(pid.read_text())
        process.terminate()
        code = process.wait(60)
        with pytest.raises(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
        assert code == 128 + signal.SIGTERM
    finally:
        process.kill()


def wait_for(port: int, process) -> None:
    import socket

    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the server did not start")
