"""An online run whose judge is an endpoint that fails: a good checkpoint, and none asked twice."""

import functools
import json
from collections import Counter

import pytest

from fpo_core.errors import JudgeError
from fpo_core.judges.chat_client import Attempts, ChatClient
from fpo_core.judges.endpoint import EndpointJudge
from fpo_core.judges.judge import FunctionJudge
from fpo_core.judges.reply_file import ReplyFile
from fpo_core.judges.templates import Template
from tests.backends.runs import files_of, log_of, run_tiny, settings
from tests.judges.server import SEPARATOR, Raw, completion, serving, texts

ASKED = Template("test", "letter", 3, SEPARATOR.join(["", "{prompt}", "{a}", "{b}", ""]))
QUICK = Attempts(timeout=0.3, retries=1, first_pause=0.01)
ONLINE = {
    "online": "plain",
    "online_every": 3,
    "online_tokens": 8,
    "iters": 6,
    "save_every": 6,
    "save_total_limit": 1,
}
FAILURES = {
    "500": Raw(500, b"out of order"),
    "429": Raw(429, b"slow down", headers={"retry-after": "0"}),
    "stall": Raw(body=completion("A"), hang=0.8),
    "dropped": Raw(drop=True),
    "half a reply": Raw(body=completion("A")[:20], headers={"content-length": "20"}),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return lambda backend: folder / backend


class Asked:
    """A server that prefers the longer answer, until it fails after so many replies."""

    def __init__(self):
        self.replies: Counter[str] = Counter()
        self.failure: Raw | None = None
        self.after = 0

    def __call__(self, body, number):
        key = json.dumps(body, sort_keys=True)
        if self.failure is not None and sum(self.replies.values()) >= self.after:
            return self.failure
        self.replies[key] += 1
        _, a, b = texts(body)
        return "A" if (len(a), a) > (len(b), b) else "B"


def judge_of(server, path):
    def client():
        return ChatClient(server.url, None, QUICK)

    return EndpointJudge(client, "m", ASKED, ReplyFile(path), concurrency=2)


def run(backend, tiny, store, folder, judge, **changes):
    config = settings(tiny, folder, backend=backend, **(ONLINE | changes))
    return run_tiny(config, store(backend), judge=judge)


@pytest.fixture(scope="module")
def undisturbed_run(tiny, store, tmp_path_factory):
    """What a server that never fails was asked, and the folder of that run."""

    @functools.cache
    def make(backend):
        folder, asked = tmp_path_factory.mktemp(backend), Asked()
        with serving(asked) as server:
            run(backend, tiny, store, folder / "run", judge_of(server, folder / "v"))
        assert set(asked.replies.values()) == {1}
        return asked, folder / "run"

    return make


@pytest.mark.parametrize(
    ("backend", "failure"), [*(("torch", name) for name in FAILURES), ("mlx", "500")]
)
def test_a_run_stops_with_a_checkpoint_and_goes_on_to_the_same(
    backend, failure, tiny, store, undisturbed_run, tmp_path
):
    """The judge fails within the second pool: step 3 is saved, and no reply is asked for again."""
    asked, (whole, undisturbed) = Asked(), undisturbed_run(backend)
    asked.failure, asked.after = FAILURES[failure], sum(whole.replies.values()) // 2 + 1
    with serving(asked) as server:
        verdicts = tmp_path / "v"
        with pytest.raises(JudgeError, match=r"gave no reply to \d+ questions") as error:
            run(backend, tiny, store, tmp_path / "cut", judge_of(server, verdicts))
        assert "checkpoint of step 3 of 6 is whole" in str(error.value)
        assert "with resume go on from it" in str(error.value)
        asked.failure = None
        run(backend, tiny, store, tmp_path / "cut", judge_of(server, verdicts), resume=True)
    assert asked.replies == whole.replies, "some question was asked twice, or never"
    assert files_of(tmp_path / "cut") == files_of(undisturbed)
    assert log_of(tmp_path / "cut") == log_of(undisturbed)


def test_nonsense_on_some_pairs_is_counted(tiny, store, tmp_path):
    """Which are asked once more, with a reminder, and then keep the pair of the data."""
    asked = Asked()
    asked.failure, asked.after = Raw(body=completion("as an assistant, I like both")), 9
    with serving(asked) as server:
        run("torch", tiny, store, tmp_path / "run", judge_of(server, tmp_path / "v"), iters=3)
    [said] = [line for line in log_of(tmp_path / "run") if line["kind"] == "pool"]
    assert said["no_verdict"] > 0 < said["pairs"]
    assert said["pairs"] + said["tied"] + said["no_verdict"] == said["wanted"]


def test_a_judge_without_any_verdict_is_told_from_ties(tiny, store, tmp_path):
    with serving(lambda body, number: "as an assistant, I like both") as server:
        judge = judge_of(server, tmp_path / "v")
        with pytest.raises(JudgeError, match="no verdict that can be read on any of the") as error:
            run("torch", tiny, store, tmp_path / "run", judge)
    assert "there is no checkpoint yet: begin again" in str(error.value)


def test_a_judge_that_is_a_function_and_fails_leaves_a_checkpoint(tiny, store, tmp_path):

    calls = []

    def judge(prompt, text):
        calls.append(text)
        return len(text) if len(calls) < 20 else 1 / 0

    with pytest.raises(JudgeError, match=r"judge f failed .* checkpoint of step 3 of 6 is whole"):
        run("torch", tiny, store, tmp_path / "run", FunctionJudge(judge, "f"))
    folder = tmp_path / "run" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step-00000003"]
