"""In which precision a merged model is written, by how much of the adapter rounding takes."""

from collections.abc import Callable

import pytest

from fpo.merging import precise_enough
from fpo_core.adapters.merge import Fused
from fpo_core.adapters.merge_check import FuseCheck
from fpo_core.errors import ModelError
from fpo_core.events import Event

Merge = Callable[[str | None], tuple[Fused, FuseCheck]]


def merges(lost: float, *, refused: bool = False) -> Merge:
    """A base in float16, where rounding loses a share of an adapter that moves logits by 0.5."""

    def merged(dtype: str | None) -> tuple[Fused, FuseCheck]:
        written = dtype or "float16"
        if refused and written == "float16":
            raise ModelError("rounding loses it")
        rms = 0.0 if written == "float32" else 0.5 * lost
        return Fused([written], 1), FuseCheck(largest=rms, rms=rms, moved=0.5, tolerance=1.0)

    return merged


@pytest.mark.parametrize(
    ("lost", "asked", "written", "said"),
    [
        (0.04, "auto", "float16", []),
        (0.06, "auto", "float32", [("note", "6% of the adapter's effect")]),
        (0.06, "float32", "float32", []),
        (0.29, "base", "float16", [("warning", "lost 29%")]),
        (0.29, "float16", "float16", [("warning", "set save_dtype to float32")]),
        (0.04, "base", "float16", []),
    ],
)
def test_a_twentieth_of_the_effect_may_go(
    lost: float, asked: str, written: str, said: list[tuple[str, str]]
) -> None:
    events: list[Event] = []
    fused, check = precise_enough(merges(lost), asked, events.append)
    assert fused.dtypes == [written]
    assert check.lost == pytest.approx(0 if written == "float32" else lost)
    assert [event.kind for event in events] == [kind for kind, _ in said]
    for event, (_, words) in zip(events, said, strict=True):
        assert words in event.values["message"]


def test_what_the_check_refuses_is_tried_in_float32_only_where_nothing_was_asked_for() -> None:
    fused, _ = precise_enough(merges(0.0, refused=True), "auto", lambda _: None)
    assert fused.dtypes == ["float32"]
    with pytest.raises(ModelError, match="rounding loses it"):
        precise_enough(merges(0.0, refused=True), "base", lambda _: None)
