"""An endpoint as a judge, against a real server on loopback."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fpo.world import assets, score
from fpo_core.errors import ConfigError, JudgeError
from fpo_core.judges.chat_client import Attempts, ChatClient
from fpo_core.judges.endpoint import EndpointJudge
from fpo_core.judges.reply_file import ReplyFile
from fpo_core.judges.templates import Reply, Template, template_of
from fpo_core.judges.win_rate import win_rate

from .server import SEPARATOR, Raw, Server, completion, serving, texts

ROOT = Path(__file__).parents[2]
ASKED = Template("test", "letter", 3, SEPARATOR.join(["", "{prompt}", "{a}", "{b}", ""]))
QUICK = Attempts(timeout=0.5, retries=3, first_pause=0.01)
PAIRS = (["p1", "p2", "p3"], ["good", "fine", "bad"], ["bad", "poor", "good"])
RANK = ["bad", "poor", "fine", "good"]


def judge_of(
    server: Server, path: Path, template: Template = ASKED, key: str | None = None, **options: int
) -> EndpointJudge:
    def client() -> ChatClient:
        return ChatClient(server.url, key, QUICK)

    return EndpointJudge(client, "m", template, ReplyFile(path), server=server.url, **options)


def better(body: dict, number: int) -> str:
    _, a, b = texts(body)
    return "A" if RANK.index(a) > RANK.index(b) else "B"


def world_pairs(count: int) -> tuple[list[str], list[str], list[str]]:
    rows = [json.loads(line) for line in assets().valid.read_text().splitlines()[:count]]
    prompts, chosen, rejected = (
        [row[name][-1]["content"] for row in rows] for name in ("prompt", "chosen", "rejected")
    )
    # Every third pair is of two rejected answers, so that there are ties.
    firsts = [r if i % 3 == 2 else c for i, (c, r) in enumerate(zip(chosen, rejected, strict=True))]
    return prompts, firsts, [f"{text} " for text in rejected]


def test_the_exact_oracle_gives_the_exact_rate(tmp_path: Path) -> None:
    def answer(body: dict, number: int) -> str:
        prompt, a, b = texts(body)
        left, right = score(prompt, a).preferred, score(prompt, b).preferred
        return "C" if left == right else "A" if left > right else "B"

    prompts, a, b = world_pairs(30)
    score(prompts[0], a[0])  # the grammar's patterns are made once, which takes seconds
    with serving(answer) as server:
        preferences = judge_of(server, tmp_path / "v").prefer(prompts, a, b)
    scored = [[score(*row).preferred for row in zip(prompts, side, strict=True)] for side in (a, b)]
    direct = [0.5 * ((x > y) + (x >= y)) for x, y in zip(*scored, strict=True)]
    assert {0.5, 1.0} <= {*direct}
    sizes = [(len(x), len(y)) for x, y in zip(a, b, strict=True)]
    assert win_rate(prompts, preferences, sizes) == win_rate(prompts, direct, sizes)


def test_a_judge_of_the_place_alone_tells_nothing_and_is_told(tmp_path: Path) -> None:
    with serving(lambda body, n: "A") as server:
        orders = judge_of(server, tmp_path / "v").orders(*PAIRS)
    assert orders.means() == [0.5] * 3
    assert orders.disagreement() == 1.0


def test_probabilities_of_the_letters_make_a_soft_preference(tmp_path: Path) -> None:
    """With A first P(A) = 0.6, P(B) = 0.2, P(tie) = 0.1: (0.6 + 0.05) / 0.9; with B first 0.5."""

    def answer(body: dict, number: int) -> bytes:
        letters = {" A": 0.6, "B": 0.2, "C": 0.1, "x": 0.1}
        if texts(body)[1] == "poor":
            letters = {"A": 0.4, "B": 0.4}
        return completion("A", {token: math.log(p) for token, p in letters.items()})

    with serving(answer) as server:
        (found,) = judge_of(server, tmp_path / "v").prefer(["p"], ["fine"], ["poor"])
        assert server.requests[0]["logprobs"] is True
    assert found == pytest.approx((0.65 / 0.9 + 0.5) / 2)


HTML = Raw(body=b"<html>gateway</html>")


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (Raw(429, b"slow down", headers={"Retry-After": "0.3"}), 0.3),
        (Raw(500, b"oops"), 0.0),
        (Raw(drop=True), 0.0),
        (Raw(hang=2.0, body=completion("A")), 0.0),
        (HTML, 0.0),
        (Raw(body=b'{"choices": []}'), 0.0),
        (Raw(body=b'{"choices": [{"message": {"content": 3}}]}'), 0.0),
        (Raw(body=b"{"), 0.0),
    ],
)
def test_a_fault_that_passes_changes_nothing(fault: Raw, wait: float, tmp_path: Path) -> None:
    """Each of the first three requests (of one pair there are two) meets it."""

    def answer(body: dict, number: int) -> str | Raw:
        return fault if number < 3 else better(body, number)

    with serving(answer) as server:
        assert judge_of(server, tmp_path / "v", concurrency=1).prefer(["p"], ["good"], ["bad"]) == [
            1
        ]
        assert len(server.requests) == 5
        gaps = np.diff(server.times)
    assert gaps[:3].min() >= wait


@pytest.mark.parametrize("fault", [Raw(500), Raw(drop=True), HTML, Raw(429)])
def test_a_fault_that_stays_is_no_verdict_and_no_tie(fault: Raw, tmp_path: Path) -> None:
    def answer(body: dict, number: int) -> str | Raw:
        return fault if texts(body)[0] == "p2" else better(body, number)

    with serving(answer) as server:
        first, second, third = judge_of(server, tmp_path / "v").prefer(*PAIRS)
        assert (first, third) == (1.0, 0.0)
        assert math.isnan(second)
        # Nothing was paid for it, so that the next run asks again, and only that.
        server.answer, before = better, len(server.requests)
        assert judge_of(server, tmp_path / "v").prefer(*PAIRS) == [1.0, 1.0, 0.0]
        assert len(server.requests) == before + 2


@pytest.mark.parametrize(
    "said",
    ["I'm sorry, but I can't compare these.", "", "Answer A and answer B are", "AB", "maybe"],
)
def test_a_refusal_is_asked_once_more_and_then_no_verdict(said: str, tmp_path: Path) -> None:
    with serving(lambda body, n: said) as server:
        found = judge_of(server, tmp_path / "v").prefer(["p"], ["good"], ["bad"])
        assert math.isnan(found[0])
        assert len(server.requests) == 4
        assert server.requests[-1]["messages"][-1]["content"] == ASKED.reminder
        assert math.isnan(judge_of(server, tmp_path / "v").prefer(["p"], ["good"], ["bad"])[0])
        assert len(server.requests) == 4  # what was paid for is not asked again


def test_a_server_without_probabilities_is_read_by_its_letter(tmp_path: Path) -> None:
    """Some ignore the wish, and some refuse the request for it."""

    def strict(body: dict, number: int) -> str | Raw:
        return Raw(400, b"no logprobs here") if "logprobs" in body else better(body, number)

    for i, answer in enumerate((better, strict)):
        with serving(answer) as server:
            assert judge_of(server, tmp_path / str(i)).prefer(*PAIRS) == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_question_that_is_refused_leaves_the_others(status: int, tmp_path: Path) -> None:
    """As one too long for the model is: it has no verdict, and the others keep probabilities."""

    def answer(body: dict, number: int) -> str | Raw:
        long = texts(body)[0] == "p1"
        return Raw(status, b"maximum context length") if long else better(body, number)

    with serving(answer) as server:
        found = judge_of(server, tmp_path / "v", concurrency=1).prefer(*PAIRS)
        assert math.isnan(found[0])
        assert found[1:] == [1.0, 0.0]
        assert all("logprobs" in r for r in server.requests if texts(r)[0] != "p1")
        assert len(server.requests) <= 4 + 2 * 2


def test_replies_are_of_their_server(tmp_path: Path) -> None:
    """Local servers answer to any name: the same name at another address is another model."""

    def first(body: dict, number: int) -> str:
        return "A" if texts(body)[1] == "good" else "B"

    for said, expected in ((first, 1.0), (lambda b, n: "AB"[first(b, n) == "A"], 0.0)):
        with serving(said) as server:
            judge = judge_of(server, tmp_path / "v")
            assert judge.prefer(["p"], ["good"], ["bad"]) == [expected]
            assert len(server.requests) == 2


@pytest.mark.parametrize("status", [401, 404])
def test_what_no_attempt_can_mend_ends_at_once(status: int, tmp_path: Path) -> None:
    with serving(lambda body, n: Raw(status, b"bad key sk-secret")) as server:
        judge = judge_of(server, tmp_path / "v", key="sk-secret", concurrency=1)
        with pytest.raises(JudgeError, match=f"refused with {status} .*judge_model") as error:
            judge.prefer(*PAIRS)
        assert len(server.requests) <= 2
    assert "sk-secret" not in str(error.value)


def test_a_server_that_is_gone_is_said(tmp_path: Path) -> None:
    with serving(better) as server:
        pass
    with pytest.raises(JudgeError, match="see whether the server runs"):
        judge_of(server, tmp_path / "v").prefer(*PAIRS)


def test_the_key_is_in_the_header_and_nowhere_else(tmp_path: Path) -> None:
    """Even where the server repeats it."""
    with serving(lambda body, n: "you sent sk-secret") as server:
        judge_of(server, tmp_path / "v", key="sk-secret").prefer(["p"], ["good"], ["bad"])
        assert {h["Authorization"] for h in server.headers} == {"Bearer sk-secret"}
        assert "sk-secret" not in json.dumps(server.requests)
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert "[key]" in written[0]
    assert not any("sk-secret" in text for text in written)


def test_equal_answers_tie_and_nobody_is_asked(tmp_path: Path) -> None:
    with serving(better) as server:
        judge = judge_of(server, tmp_path / "v")
        assert judge.prefer(["p", "q"], ["good", "bad"], ["good", "bad"]) == [0.5, 0.5]
        assert judge.cost(["p"], ["good"], ["good"]).calls == 0
        assert not server.requests


def test_what_is_left_is_counted_before_and_asked_once(tmp_path: Path) -> None:
    with serving(better) as server:
        judge = judge_of(server, tmp_path / "v", concurrency=4)
        prompts, a, b = (list(side) for side in PAIRS)
        cost = judge.cost(prompts, a, b)
        assert (cost.calls, cost.tokens_out) == (6, 18)
        assert cost.price(1e6, 0) == cost.tokens_in > 0
        judge.prefer(prompts[:2], a[:2], b[:2])
        assert judge.cost(prompts, a, b).calls == 2
        assert judge.prefer(prompts, a, b) == judge.prefer(prompts, a, b) == [1.0, 1.0, 0.0]
        assert len(server.requests) == 6
        # The other way round the same questions are asked: they are answered already.
        assert judge.prefer(prompts, b, a) == [0.0, 0.0, 1.0]
        assert len(server.requests) == 6


def test_requests_go_out_together(tmp_path: Path) -> None:
    def slow(body: dict, number: int) -> Raw:
        return Raw(body=completion("A"), hang=0.05)

    many = [f"p{i}" for i in range(12)]
    with serving(slow) as server:
        judge_of(server, tmp_path / "v", concurrency=4).prefer(many, ["x"] * 12, ["y"] * 12)
        assert 2 <= server.most_at_once <= 4


RUN = """
import sys
from pathlib import Path
from tests.judges.test_endpoint import MANY, judge_of
class At: url = sys.argv[1]
judge_of(At, Path(sys.argv[2]), concurrency=2).prefer(*MANY)
"""
MANY = ([f"p{i}" for i in range(20)], ["good"] * 20, ["bad"] * 20)


def test_a_killed_run_asks_only_what_is_missing(tmp_path: Path) -> None:
    """Killed in the middle: as many requests follow as replies are not in the file."""

    killed = threading.Event()

    def some(body: dict, number: int) -> str:
        if number >= 12:  # however slow this test is, the child does not end before it is killed
            killed.wait()
        return better(body, number)

    path = tmp_path / "v"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    with serving(some) as server:
        child = subprocess.Popen(
            [sys.executable, "-c", RUN, server.url, str(path)], env=environment
        )
        while not path.exists() or path.read_text().count("\n") < 9:
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        killed.set()
        time.sleep(0.1)  # for requests that were under way
        with path.open("a") as file:
            file.write('{"key": "half a li')
        there, asked = path.read_text().count("\n"), len(server.requests)
        assert 9 <= there < 40
        assert judge_of(server, path).prefer(*MANY) == [1.0] * 20
        assert len(server.requests) - asked == 40 - there
    assert len(ReplyFile(path)._replies) == 40


def test_another_file_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("my notes\nand more\n")
    with pytest.raises(ConfigError, match="line 1 is no reply"):
        ReplyFile(tmp_path / "v")


@pytest.mark.parametrize(
    ("name", "said", "value"),
    [
        ("arena", "A is better. [[A>>B]]", 1.0),
        ("arena", "First [[A>B]], no: [[B>A]]", 0.25),
        ("arena", "[[A=B]]", 0.5),
        ("arena", "A>B", math.nan),
        ("mt-bench", "Good. Rating: [[8]]", 8.0),
        ("mt-bench", "Rating: [[11]]", math.nan),
        ("mt-bench", "Rating: 8", math.nan),
        ("alpaca", "**B**", 0.0),
        ("alpaca", "Answer: A", 1.0),
        ("alpaca", "a tie", math.nan),
    ],
)
def test_shipped_templates_read_replies(name: str, said: str, value: float) -> None:
    assert template_of(name).read(Reply(said)) == pytest.approx(value, nan_ok=True)


def test_braces_in_a_text_are_no_places() -> None:
    (message,) = ASKED.messages({"prompt": "{a}", "a": "{b} {x}", "b": "B"})
    assert message["content"].split(SEPARATOR)[1:4] == ["{a}", "{b} {x}", "B"]


def test_a_template_of_a_file_grades(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("reply: grade\nuser: 'Grade {answer} to {prompt}'\n")
    with serving(
        lambda body, n: "[[7]]" if "fine" in body["messages"][0]["content"] else "[[4]]"
    ) as server:
        judge = judge_of(server, tmp_path / "v", template_of(str(file)))
        assert judge.score(["p"], ["fine"]) == [7.0]
        assert judge.prefer(["p"], ["fine"], ["bad"]) == [1.0]
        assert judge.cost(["p"], ["new"], ["bad"]).calls == 1


@pytest.mark.parametrize(
    "text", ["reply: letter\nuser: '{prompt} {a}'", "user: x", "reply: x\nuser: '{prompt}'", "[]"]
)
def test_a_template_that_asks_nothing_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match="expected"):
        template_of(str(tmp_path / "mine.yaml"))
