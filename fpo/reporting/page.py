"""From what runs left to one HTML file: the templates filled, scripts and styles under a hash.

The page asks nothing of a network, and its Content-Security-Policy would let nothing through: it
runs the one script that is in it. Texts are made safe in two steps. `safe` writes hidden characters
as escapes, and the template escapes markup; in JSON for the script, `<`, `>` and `&` are escapes.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from fpo.reporting.charts import Chart, charts_of_run, is_number
from fpo.reporting.feature_table import feature_table
from fpo.reporting.record import Record
from fpo_core import __version__
from fpo_core.io.foreign_text import for_page

_LONGEST = 4000
"""Characters of one text, such as a prompt, that are shown."""
_LINE = re.compile(r"([^?:]+(?:\?|(?=:))):? (.*?)(?:: (.*)|\.?)$", re.DOTALL)
_MOODS = {
    ("Learned?", "yes"): "good",
    ("Learned?", "in part"): "warn",
    ("Learned?", "unclear"): "warn",
    ("Learned?", "no"): "bad",
    ("Drifted?", "within bounds"): "good",
    ("Drifted?", "far"): "bad",
    ("Drifted?", "broken"): "bad",
    ("Constraint active?", "yes, it outweighs"): "warn",
    ("Constraint active?", "yes"): "good",
    ("Constraint active?", "hardly"): "warn",
    ("Both rewards falling?", "yes"): "warn",
    ("Both rewards falling?", "no"): "good",
}
_SECTIONS = {
    "verdict": "Verdict",
    "frontier": "Cost",
    "runs": "Runs",
    "charts": "Curves",
    "measured": "Measurements",
    "pairs": "Pairs",
    "samples": "Samples",
    "features": "Features",
    "differences": "Settings",
    "settings": "Settings",
}
_PLACES = {"charts": "curves", "differences": "settings"}
_EMPTY = dict.fromkeys((*_SECTIONS, "data_lines", "command", "all_settings"), ())


def safe(value: Any) -> Any:
    """JSON values with every text made safe to show, keys included."""
    if isinstance(value, str):
        return for_page(value, _LONGEST)
    if isinstance(value, Mapping):
        return {for_page(str(key), _LONGEST): safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        # Lists of numbers are long, and hold nothing to look at.
        is_numbers = bool(value) and isinstance(value[0], int | float)
        return value if is_numbers and not isinstance(value[-1], str) else [safe(v) for v in value]
    return value


def run_page(record: Record, events: Sequence[Mapping[str, Any]]) -> str:
    """The page of a run, from its record and the events of its log."""
    shown = safe(record)
    charts = charts_of_run(events, _ends(record), _last_step(events))
    pairs = shown.get("pairs") or []
    values = {
        "title": shown["title"],
        "about": shown["about"],
        "verdict": [_verdict_line(line) for line in shown.get("verdict", ())],
        "charts": charts,
        "measured": shown.get("measured"),
        "pairs": pairs,
        "samples": shown.get("samples", ()),
        "features": feature_table(shown),
        "settings": shown.get("settings", ()),
        "all_settings": shown.get("all_settings", ()),
        "data_lines": shown.get("data", ()),
        "command": shown.get("command", ""),
    }
    return filled(values, charts, pairs, shown.get("vocabulary", []))


def features_alone(record: Record) -> str:
    """The page of an autoencoder's features without a run."""
    shown = safe(record)
    values = {name: shown[name] for name in ("title", "about")}
    features = feature_table(shown)
    return filled(values | {"features": features}, (), vocabulary=shown["vocabulary"])


def filled(
    values: Mapping[str, Any],
    charts: Sequence[Chart],
    pairs: Sequence[Any] = (),
    vocabulary: Sequence[str] = (),
) -> str:
    """The template with `values`, and what its script needs as data."""
    style, script = _part("page.css"), _part("page.js")
    known = _EMPTY | dict(values)
    rows = known["features"]["rows"] if known["features"] else ()
    data = {
        "charts": [chart.to_mapping() for chart in charts],
        "pairs": list(pairs),
        "contexts": [row["contexts"] for row in rows],
        "vocabulary": list(vocabulary),
    }
    listed = [(_PLACES.get(name, name), words) for name, words in _SECTIONS.items() if known[name]]
    return _template().render(
        **known,
        sections=list(dict(listed).items()),
        data=data,
        style=_markup(style),
        script=_markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        version=__version__,
        made_by=f"Made by fpo-mlx {__version__}. This file is complete: it loads nothing.",
    )


def _ends(record: Record) -> dict[str, tuple[float, float]]:
    """Metrics that were measured before and after, by name."""
    before, after = record.get("before") or {}, record.get("after") or {}
    return {
        name: (before[name], after[name])
        for name in before
        if is_number(before[name]) and is_number(after.get(name))
    }


def _last_step(events: Sequence[Mapping[str, Any]]) -> int:
    return max((event["step"] for event in events), default=0)


def _verdict_line(line: str) -> dict[str, str]:
    """A sentence of the verdict as what it asks, its answer, and the numbers behind that."""
    match = _LINE.match(line)
    if match is None:
        return {"asked": "", "said": line, "why": "", "mood": ""}
    asked, said, why = match[1], match[2], match[3] or ""
    if not asked.endswith("?"):
        said, why = line.partition(": ")[2], ""
    moods = (mood for (a, s), mood in _MOODS.items() if asked == a and said.startswith(s))
    return {"asked": asked, "said": said, "why": why, "mood": next(moods, "")}


def _part(name: str) -> str:
    return (resources.files("fpo.reporting") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_part),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
