"""Curves of a run's log as pictures: what to draw, thinned out, with axes of round numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

Point = tuple[float, float]

WIDTH, HEIGHT = 360.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 28.0
_BUCKETS = 150
"""A curve keeps the lowest and the highest point of each of so many parts."""
MIB = 2**20


@dataclass(frozen=True)
class Curve:
    """A line, or points where `joined` is off."""

    name: str
    points: Sequence[Point]
    colour: int = 0
    joined: bool = True
    labels: Sequence[str] = ()
    """Names of the points."""


@dataclass(frozen=True)
class Tick:
    """A number at an axis, and where it stands."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Curves over a common axis, laid out in units of the picture."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    x_range: Point
    y_range: Point
    note: str = ""

    @classmethod
    def of(
        cls,
        title: str,
        y_label: str,
        curves: Iterable[Curve],
        *,
        x_label: str = "step",
        note: str = "",
        limits: Point | None = None,
    ) -> "Chart | None":
        """A chart of the curves that have points; None where none has."""
        drawn = [curve for curve in curves if curve.points]
        if not drawn:
            return None
        xs = [x for curve in drawn for x, _ in curve.points]
        ys = [y for curve in drawn for _, y in curve.points]
        x_range, y_range = _padded(min(xs), max(xs), 0.0), limits or _padded(min(ys), max(ys), 0.06)
        return cls(title, x_label, y_label, drawn, x_range, y_range, note)

    def x(self, value: float) -> float:
        """Where a value stands, in the picture's units."""
        low, high = self.x_range
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Where a value stands; larger ones are nearer to the top, which is 0."""
        low, high = self.y_range
        share = (value - low) / (high - low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def path(self, curve: Curve) -> str:
        """The curve in SVG's language."""
        return "M" + "L".join(f"{self.x(x)} {self.y(y)}" for x, y in curve.points)

    @property
    def x_ticks(self) -> list[Tick]:
        """At most five round numbers."""
        return [Tick(self.x(v), text) for v, text in _round_numbers(*self.x_range)]

    @property
    def y_ticks(self) -> list[Tick]:
        """At most five round numbers."""
        return [Tick(self.y(v), text) for v, text in _round_numbers(*self.y_range)]

    @property
    def words(self) -> str:
        """The chart for those who do not see it: where each curve begins and ends."""
        parts = [
            f"{curve.name} from {shown(curve.points[0][1])} to {shown(curve.points[-1][1])}"
            if curve.joined
            else f"{curve.name} at {shown(curve.points[0][1])}"
            for curve in self.curves
        ]
        return f"{self.title}: {', '.join(parts)}."

    def to_mapping(self) -> dict[str, Any]:
        """What a pointer needs: the points of every curve and where they stand."""
        return {
            "x": self.x_label,
            "curves": [
                {
                    "name": curve.name,
                    "colour": curve.colour,
                    "labels": list(curve.labels),
                    "points": [[x, _short(y), self.x(x), self.y(y)] for x, y in curve.points],
                }
                for curve in self.curves
            ],
        }


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most a few hundred of the points, the lowest and highest of every part among them."""
    if len(points) <= 2 * _BUCKETS:
        return list(points)
    extremes = {0, len(points) - 1}
    for part in range(_BUCKETS):
        start, end = part * len(points) // _BUCKETS, (part + 1) * len(points) // _BUCKETS
        rows = range(start, end)
        extremes |= {min(rows, key=lambda i: points[i][1]), max(rows, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(extremes)]


_RUN = (
    ("Loss", "nats", ("loss",), True, 1),
    ("Accuracy", "share of pairs", ("fpo/raw_accuracy", "rewards/accuracies"), False, 1),
    ("Rewards", "reward", ("rewards/chosen", "rewards/rejected"), False, 1),
    ("Sequential KL", "nats", ("fpo/kl_chosen", "fpo/kl_rejected"), False, 1),
    ("Feature discrepancy D", "D (eq. 10)", ("fpo/d_chosen", "fpo/d_rejected"), False, 1),
    ("Constraint over preference", "ratio", ("fpo/constraint_ratio",), True, 1),
    ("Peak memory", "MiB", ("peak_memory",), True, MIB),
    ("Speed", "tokens per second", ("tokens_per_second",), True, 1),
)
"""Title, unit, metrics, whether training steps are drawn besides validations, and a divisor."""
_NAMES = {
    "fpo/raw_accuracy": "raw",
    "rewards/accuracies": "reward",
}
_SHARES = ("Accuracy",)
_OF_RUNS = (0, 1, 3, 4, 5, 6, 7)


def charts_of_run(
    events: Sequence[Mapping[str, Any]], ends: Mapping[str, tuple[float, float]], last: int
) -> list[Chart]:
    """The charts of a run's log.

    `ends` are metrics that were measured at step 0 and at the `last` one alone; they make a curve
    where the log holds none.
    """
    charts = []
    for title, unit, names, training, per in _RUN:
        curves = []
        for colour, name in enumerate(names):
            label = _NAMES.get(name, name.rpartition("_")[2].rpartition("/")[2])
            points = _points(events, "eval", f"eval_{name}", per)
            if len(names) == 1:
                trained = _points(events, "train", name, per) if training else []
                curves += [Curve("training", trained, 2), Curve("validation", points, 0)]
                continue
            if not points and name in ends:
                points = [(0.0, ends[name][0]), (float(last), ends[name][1])]
            curves.append(Curve(label, points or _points(events, "train", name, per), colour))
        ended = not any(f"eval_{name}" in event for event in events for name in names)
        note = "measured at the start and at the end" if ended and names[0] in ends else ""
        limits = (0.0, 1.0) if title in _SHARES else None
        charts.append(Chart.of(title, unit, curves, note=note, limits=limits))
    return [chart for chart in charts if chart is not None]


def charts_of_runs(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Chart]:
    """Validation curves of several runs, a colour each."""
    wanted = (
        ("Validation loss", "nats", "eval_loss", None),
        ("Raw accuracy", "share of pairs", "eval_fpo/raw_accuracy", (0.0, 1.0)),
        ("D, rejected", "D (eq. 10)", "eval_fpo/d_rejected", None),
        ("Reward margin", "reward", "eval_rewards/margins", None),
    )
    charts = [
        Chart.of(
            title,
            unit,
            [
                Curve(name, _points(events, "eval", metric, 1), colour_of(number))
                for number, (name, events) in enumerate(logs.items())
            ],
            limits=limits,
        )
        for title, unit, metric, limits in wanted
    ]
    return [chart for chart in charts if chart is not None]


def colour_of(run: int) -> int:
    """The colour of one of several runs; the grey one is the start's."""
    return _OF_RUNS[run % len(_OF_RUNS)]


def _points(events: Iterable[Mapping[str, Any]], kind: str, metric: str, per: float) -> list[Point]:
    """Steps and values of a metric, those that are finite numbers."""
    points = [
        (float(event["step"]), event[metric] / per)
        for event in events
        if event["kind"] == kind and is_number(event.get(metric))
    ]
    return thinned(points)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value has a place in a chart."""
    return isinstance(value, int | float) and math.isfinite(value)


def _padded(low: float, high: float, share: float) -> Point:
    """A range with some room, never empty."""
    room = (high - low) * share
    if high == low:
        room = abs(high) * 0.1 or 1.0
    return low - room, high + room


def _round_numbers(low: float, high: float) -> list[tuple[float, str]]:
    """Multiples of 1, 2 or 5 times a power of ten inside a range, at most five or so."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 5)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    values = [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return [(value, _tick(value, digits)) for value in values]


def _tick(value: float, digits: int) -> str:
    value += 0.0  # no −0
    if abs(value) >= 10_000:
        text = f"{value / 1000:g}k"
    else:
        text = f"{value:g}" if digits > 4 else f"{value:.{digits}f}"
    return text.replace("-", "−")


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def shown(value: float) -> str:
    """A value in words."""
    return f"{value:.3g}"
