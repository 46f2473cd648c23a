"""Features that moved as rows of a table, with the tokens around where each is strongest."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FILTERS = (
    ("rose", "fires more on chosen"),
    ("fell", "fires less on chosen"),
    ("new", "new on some side"),
    ("gone", "gone from some side"),
)


def feature_table(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of a record's features; empty where it has none."""
    features = record.get("features") or ()
    if not features:
        return {}
    first, second = record["sides"]
    compared = record.get("d") is not None
    lens = any(feature["promotes"] for feature in features)
    head = ["feature", *(["promotes"] if lens else []), f"mean, {first}", f"mean, {second}"]
    head += ["fires in"] if compared else ["difference", f"fires in, {first}"]
    head += ["adds to D"] if compared else []
    most = max(sum(feature["d"]) for feature in features)
    several = len(record["saes"]) > 1
    return {
        "title": "Features that moved" if compared else "Features that differ",
        "about": _about(record, compared),
        "filters": _FILTERS if compared else (),
        "head": head,
        "left": (1, 2) if lens else (1,),
        "lens": lens,
        "rows": [_row(f, record, most, compared, several) for f in features],
    }


def _about(record: Mapping[str, Any], compared: bool) -> list[str]:
    places = ", ".join(f"{sae['hook']} ({sae['d_sae']} features)" for sae in record["saes"])
    if not compared:
        return [
            f"Read at {places}. Means are over completions, of each one's mean over its tokens."
        ]
    d = record["d"]
    shares = sum(sum(feature["d"]) for feature in record["features"]) / (sum(d) or 1.0)
    return [
        f"Read at {places}. D is {d[0]:.4g} on chosen and {d[1]:.4g} on rejected completions; the "
        f"features below make up {shares:.1%} of it."
    ]


def _row(
    feature: Mapping[str, Any],
    record: Mapping[str, Any],
    most: float,
    compared: bool,
    several: bool,
) -> dict[str, Any]:
    sae = record["saes"][feature["sae"]]
    before, after = feature["before"], feature["after"]
    if compared:
        d, fires = sum(feature["d"]), sum(feature["fires_after"]) / 2
        cells = [_cell(b, a) for b, a in zip(before, after, strict=True)]
        fired = sum(feature["fires_before"]) / 2
        cells.append({"value": fires, "before": f"{fired:.0%}", "text": f"{fires:.0%}"})
        share = 76 * d / most if most else 0.0
        cells.append({"value": d, "text": f"{d:.3g}", "share": round(share, 1)})
    else:
        fires = feature["fires_after"][0]
        cells = [{"value": a, "text": f"{a:.3g}"} for a in after]
        difference = after[0] - after[1]
        cells.append({"value": difference, "text": f"{difference:+.3g}"})
        cells.append({"value": fires, "text": f"{fires:.0%}"})
    name = f"{feature['index']}"
    return {
        "index": feature["index"],
        "name": f"{sae['hook']} · {name}" if several else name,
        "link": _link(sae["neuronpedia"], feature["index"]),
        "promotes": [token if token.strip() else repr(token) for token in feature["promotes"]],
        "cells": cells,
        "moved": " ".join(_moves(feature)),
        "contexts": [_context(c, record["sides"]) for c in feature["contexts"]],
    }


def _cell(before: float, after: float) -> dict[str, Any]:
    """A mean before and after, sorted by how much it moved."""
    return {"value": after - before, "before": f"{before:.3g}", "text": f"{after:.3g}"}


def _moves(feature: Mapping[str, Any]) -> list[str]:
    before, after = feature["before"], feature["after"]
    moves = ["rose"] if after[0] > before[0] else ["fell"] if after[0] < before[0] else []
    pairs = list(zip(before, after, strict=True))
    moves += ["new"] if any(b == 0 and a != 0 for b, a in pairs) else []
    return moves + (["gone"] if any(b != 0 and a == 0 for b, a in pairs) else [])


def _link(neuronpedia: str, index: int) -> str:
    """The feature's page at Neuronpedia; nothing where the autoencoder has no id there."""
    if not _ID.fullmatch(neuronpedia or ""):
        return ""
    return f"https://www.neuronpedia.org/{neuronpedia}/{int(index)}"


def _context(context: Mapping[str, Any], sides: Sequence[str]) -> dict[str, Any]:
    """What the script draws when a reader opens it; tokens are places in the vocabulary."""
    where = f"row {context['row']}, {sides[context['side']]}"
    return {"where": where} | {name: context[name] for name in ("cut", "tokens", "activations")}
