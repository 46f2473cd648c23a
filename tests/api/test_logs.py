"""The log of a run, as it is written and read."""

from fpo.curves import read_log
from fpo_core.events import Event, JsonlLog
from fpo_core.train.run_folder import LOG_FILE, is_finished


def test_an_event_ends_at_a_line_feed_alone(tmp_path):
    """JSON leaves U+2028 as it is, where `splitlines` would end a line."""
    log = JsonlLog(tmp_path / LOG_FILE)
    for kind in ("note", "done"):
        log(Event(kind, 1, {"text": "a\u2028b\x85c"}))
    assert [event["text"] for event in read_log(tmp_path / LOG_FILE)] == ["a\u2028b\x85c"] * 2
    assert is_finished(tmp_path)


def test_a_last_line_that_was_cut_is_left_out(tmp_path):
    log = tmp_path / LOG_FILE
    log.write_text('{"kind": "train", "step": 1}\n{"kind": "tra')
    assert read_log(log) == [{"kind": "train", "step": 1}]
