"""Which columns of a row are prompt, chosen and rejected, by name or by the `columns` setting.

Each layout that public data sets share is one entry of a table here. What is not recognised is
refused with the mapping to set; every other column that holds something is reported as not read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from fpo_core.errors import DataError
from fpo_core.pairs.messages import kind

PROMPTS = (
    *("prompt", "question", "query", "instruction", "conversations", "conversation", "messages"),
    *("input", "history", "context", "post", "user", "problem"),
)
"""Columns that hold the prompt, by precedence."""
_TALKS = ("messages", "conversation", "conversations")
"""Of these, columns that may hold whole conversations, in formats of their own."""
_ROLE_KEYS = frozenset(("role", "from"))
_REPLIES = ("assistant", "gpt")
SYSTEMS = ("system", "system_prompt", "system_message")
SIDES = ("chosen", "rejected")
SCORES = ("chosen_score", "rejected_score")
_SIDES = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),  # Argilla
    ("response_j", "response_k"),  # stack-exchange-paired
    ("accepted", "rejected"),
)
_RANKED = {
    "completions": ("response", "overall_score", 1),  # UltraFeedback
    "answers": ("answer", "rank", -1),  # Nectar
}
"""Lists of replies: the keys of text and score, and the sign of a better score."""
_ORDERED = ("output",)
"""Lists of the better and the worse reply, as LLaMA-Factory once had them."""
_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
_GUESSES = (
    *(("winner", "loser"), ("preferred", "dispreferred"), ("better", "worse"), ("good", "bad")),
    *(("positive", "negative"), ("win", "lose"), ("chosen_answer", "rejected_answer")),
)
"""Likely names of the two sides, proposed to the user but not trusted."""
_TWINS = (("_a", "_b"), ("_0", "_1"), ("_1", "_2"))
_SCORE_WORDS = ("score", "rating", "reward")


@dataclass
class Standard:
    """The columns of a row under their standard names, and what was observed on the way."""

    values: dict[str, Any] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    """Names, as in the file, of the columns that were read."""
    scores: tuple[float, float] | None = None
    """Of the chosen and the rejected side, by the row's own columns."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """Issues of `fpo_core.data.report`, each with the column that it is about."""

    def take(self, name: str, source: str, value: Any) -> None:
        """Read the column `source` as `name`."""
        self.values[name] = value
        self.read.add(source)


def standard_columns(
    columns: Mapping[str, Any], mapping: Mapping[str, str], where: str
) -> Standard:
    """The columns of one row by their standard names: chosen, rejected, prompt, system and others.

    `mapping` names the column to read for a standard name, or "" for none. Raises DataError, with
    `where`, where the sides or a mapped column are missing.
    """
    standard = Standard()
    _map(standard, columns, mapping, where)
    free = {n: v for n, v in columns.items() if n not in standard.read and n not in mapping}
    _refuse_media(free, where)
    _find_sides(standard, free, columns, where)
    if "prompt" not in mapping:
        _find_prompt(standard, free)
    for name, sources in {
        "system": SYSTEMS,
        "tools": ("tools",),
        "chat_template_kwargs": ("chat_template_kwargs",),
    }.items():
        source = next((s for s in sources if s in free), None)
        if source is not None and name not in mapping:
            standard.take(name, source, free[source])
    _compare_scores(standard, columns)
    if SCORES[0] in mapping:
        score, other = (standard.values.get(name) for name in SCORES)
        standard.scores = (score, other) if _is_number(score) and _is_number(other) else None
    return standard


def ignored_columns(columns: Mapping[str, Any], read: set[str]) -> tuple[str, ...]:
    """The columns that hold something and were not read."""
    return tuple(name for name, value in columns.items() if name not in read and holds(value))


def holds(value: Any) -> bool:
    """Whether a column is not empty."""
    return bool(value.strip()) if isinstance(value, str) else value not in (None, [], {})


def _map(
    standard: Standard, columns: Mapping[str, Any], mapping: Mapping[str, str], where: str
) -> None:
    for name, source in mapping.items():
        if source in columns:
            standard.take(name, source, columns[source])
        elif source and name in ("prompt", "chosen", "rejected"):
            raise DataError(
                f"{where}: columns maps {name} to {source!r}, which is not there; found "
                f"{_listed(columns)}: map it to one of these"
            )
        elif source:
            standard.notes.append(("unmapped", source))


def _refuse_media(free: Mapping[str, Any], where: str) -> None:
    media = next((name for name in _MEDIA if holds(free.get(name))), None)
    if media is not None:
        raise DataError(
            f"{where}: the column {media} holds {kind(free[media])}, expected text columns alone: "
            "choose data without it; to train on its text alone remove the column"
        )


def _find_sides(
    standard: Standard, free: Mapping[str, Any], columns: Mapping[str, Any], where: str
) -> None:
    # A mapping may name one side alone: the other keeps its own name.
    missing = [side for side in SIDES if side not in standard.values]
    if not missing:
        return
    pairs: list[dict[str, str]] = [dict(zip(SIDES, names, strict=True)) for names in _SIDES]
    pair = next((p for p in pairs if all(p[side] in free for side in missing)), None)
    if pair is not None:
        for side in missing:
            standard.take(side, pair[side], free[pair[side]])
    elif len(missing) == 1 or not (_take_ordered(standard, free) or _take_ranked(standard, free)):
        absent = next((side for side in missing if side not in columns), missing[0])
        raise DataError(
            f"{where}: no column {absent!r}; found {_listed(columns)}; expected chosen and "
            f"rejected, with prompt unless they begin with it: {_advice(columns)}"
        )


def _take_ordered(standard: Standard, free: Mapping[str, Any]) -> bool:
    for name in _ORDERED:
        value = free.get(name)
        if isinstance(value, list) and len(value) == 2:
            standard.take("chosen", name, value[0])
            standard.take("rejected", name, value[1])
            return True
    return False


def _take_ranked(standard: Standard, free: Mapping[str, Any]) -> bool:
    """The best and the worst reply of a list; of equals the first best and the last worst."""
    for name, (text, score, sign) in _RANKED.items():
        replies = free.get(name)
        if not isinstance(replies, list):
            continue
        scored = [r for r in replies if isinstance(r, Mapping) and _is_number(r.get(score))]
        if not scored or not all(isinstance(r.get(text), str) for r in scored):
            continue
        ranked = sorted(scored, key=lambda reply: -sign * reply[score])
        if len(ranked) < 2 or ranked[0][score] == ranked[-1][score]:
            standard.notes.append(("tied", name))
        else:
            standard.notes.append(("ranked", name))
            if sign > 0:
                standard.scores = ranked[0][score], ranked[-1][score]
        standard.take("chosen", name, ranked[0][text])
        standard.take("rejected", name, ranked[-1][text])
        return True
    return False


def _find_prompt(standard: Standard, free: Mapping[str, Any]) -> None:
    candidates = [n for n in PROMPTS if n not in standard.read and _may_ask(n, free.get(n))]
    if not candidates and free.get("prompt") is not None:
        candidates = ["prompt"]  # empty, which is not to be read as an implicit one
    if not candidates:
        return
    name = candidates[0]
    standard.take("prompt", name, free[name])
    standard.values["prompt_column"] = name
    if name == "instruction":  # Alpaca's layout, with what it is about and earlier turns
        for other in ("input", "history"):
            if other in candidates:
                standard.take(other, other, free[other])
    standard.notes += [("unread", n) for n in candidates if n not in standard.read]


def _may_ask(name: str, value: Any) -> bool:
    """Whether a column asks: it holds something, and no conversation that ends with a reply."""
    if name == "prompt" or not isinstance(value, list) or not value:
        return holds(value) and not (name != "prompt" and _is_number(value))
    last = value[-1]
    if name in _TALKS and not (isinstance(last, Mapping) and _ROLE_KEYS & last.keys()):
        return False
    return not isinstance(last, Mapping) or not any(last.get(k) in _REPLIES for k in _ROLE_KEYS)


def _compare_scores(standard: Standard, columns: Mapping[str, Any]) -> None:
    """Whether the row's own scores say that the rejected side is the better one."""
    for name, score in columns.items():
        if "chosen" not in name or not any(word in name for word in _SCORE_WORDS):
            continue
        twin = name.replace("chosen", "rejected")
        other = columns.get(twin)
        if _is_number(score) and _is_number(other):
            standard.read |= {name, twin}
            standard.scores = standard.scores or (score, other)
            if score < other:
                standard.notes.append(("contradicted", f"{name} {score}, {twin} {other}"))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _advice(columns: Mapping[str, Any]) -> str:
    """What to do about a row whose two sides are not recognised."""
    names = {str(name).lower(): str(name) for name in columns}
    for a, b in _GUESSES:
        if a in names and b in names:
            return f"set columns to {_proposal(columns, names[a], names[b])}"
    for lower, name in names.items():
        for a, b in _TWINS:
            if lower.endswith(a) and (twin := names.get(lower.removesuffix(a) + b)):
                return (
                    f"{name} and {twin} say nothing of their order, so write the better one as "
                    "chosen, the other as rejected"
                )
    return f"rename the columns, or set columns such as {_proposal(columns, 'NAME', 'NAME')}"


def _proposal(columns: Mapping[str, Any], chosen: str, rejected: str) -> str:
    prompts: Sequence[str] = [name for name in PROMPTS if holds(columns.get(name))]
    prompt = f"prompt={prompts[0]}," if prompts else ""
    return f"{prompt}chosen={chosen},rejected={rejected}"


def _listed(columns: Mapping[str, Any]) -> str:
    return ", ".join(map(str, columns)) or "none"
