"""The probe that chooses a precision: by ratios alone, which no neighbour changes."""

from collections.abc import Callable, Iterator

import pytest

from fpo_core.backend.precision import WORTH, Probe, cpu_rates, probe


class Clock:
    """A processor that takes so long for each product, the first time ten times as long."""

    def __init__(self, float32: float, bfloat16: float) -> None:
        self.now, self.calls = 0.0, {"float32": 0, "bfloat16": 0}
        self.seconds = {"float32": float32, "bfloat16": bfloat16}

    def __call__(self) -> float:
        return self.now

    def products(self, *sizes: int) -> dict[str, Callable[[], None]]:
        return {name: lambda name=name: self.work(name) for name in self.seconds}

    def work(self, name: str) -> None:
        self.calls[name] += 1
        busy = 1 + self.calls[name] % 3  # a neighbour slows all but every third
        self.now += self.seconds[name] * busy * (10 if self.calls[name] == 1 else 1)


@pytest.mark.parametrize(
    ("float32", "bfloat16", "dtype"),
    [(3.0, 1.0, "bfloat16"), (3.0, 2.0, "bfloat16"), (3.0, 2.25, "float32"), (1.0, 4.0, "float32")],
)
def test_the_best_of_each_decides(float32, bfloat16, dtype, monkeypatch):
    clock = Clock(float32, bfloat16)
    monkeypatch.setattr("time.perf_counter", ticks().__next__)
    found = probe(clock.products(), seconds=5, clock=clock)
    assert (found.float32, found.bfloat16) == (float32, bfloat16)
    assert found.dtype == dtype
    assert clock.calls["float32"] == clock.calls["bfloat16"] > 3


def ticks() -> Iterator[float]:
    """A wall clock on which each round takes a second."""
    now = 0.0
    while True:
        yield now
        now += 1.0


def test_what_is_worth_it():
    assert WORTH == 1.5
    assert str(Probe(3.0, 1.5)) == "bfloat16 multiplies 2.0 times as fast as float32 here"


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_both_frameworks_multiply_in_both_precisions(backend):
    import importlib

    doctor = importlib.import_module(f"fpo_{backend}.doctor")
    found = probe(doctor.products(8, 16, 32), seconds=0)
    assert found.float32 > 0
    assert found.bfloat16 > 0
    rates = cpu_rates(lambda *_: doctor.products(8, 16, 32), 1, seconds=0)
    assert rates.keys() == {"threads", "float32", "bfloat16"}
