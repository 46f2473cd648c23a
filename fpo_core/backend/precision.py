"""Which precision a CPU multiplies matrices faster in: a probe of half a second at a model's size.

With instructions for bfloat16 it is some times as fast as float32, without them some times slower,
and no name of a processor says which.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SECONDS = 0.5
WORTH = 1.5
"""How many times as fast bfloat16 must be: below that its rounding buys too little."""
SMALLEST = 256
"""Hidden size under which a step consists of calls more than of products."""
ROWS = 256
"""Tokens of the products that are timed."""
WIDEST = 1024, 4096
"""Sizes beyond which the ratio no longer depends on them."""

Products = Mapping[str, Callable[[], None]]
"""The products of a linear layer, forward and backward, by the name of their precision."""


@dataclass(frozen=True)
class Probe:
    """Best seconds of the same products in both precisions."""

    float32: float
    bfloat16: float

    @property
    def speedup(self) -> float:
        """How many times as fast bfloat16 is."""
        return self.float32 / self.bfloat16

    @property
    def dtype(self) -> str:
        """The precision to compute in."""
        return "bfloat16" if self.speedup >= WORTH else "float32"

    def __str__(self) -> str:
        return f"bfloat16 multiplies {self.speedup:.1f} times as fast as float32 here"


def probe(
    products: Products, seconds: float = SECONDS, clock: Callable[[], float] = time.process_time
) -> Probe:
    """Time both precisions in turn for `seconds`; the best of each, by the processor's own clock.

    On a machine that others keep busy, time on the wall made the ratio anything from 1.5 to 3.4
    where processor time had 2.1 every time. The first of each is left out: it allocates, and
    starts threads.
    """
    for product in products.values():
        product()
    best = dict.fromkeys(products, float("inf"))
    end = time.perf_counter() + seconds
    while True:
        for name, product in products.items():
            start = clock()
            product()
            best[name] = min(best[name], clock() - start)
        if time.perf_counter() >= end:
            return Probe(**{name: max(value, 1e-9) for name, value in best.items()})


def cpu_rates(
    products: Callable[[int, int, int], Products], threads: int | None, seconds: float = SECONDS / 2
) -> dict[str, float | int | None]:
    """GFLOPS of a framework's products by precision, for a report, and the threads they ran on."""
    inner, outer = 1024, 2048
    timing = probe(products(ROWS, inner, outer), seconds)
    operations = 2 * 2 * ROWS * inner * outer  # one product forward and one backward
    rates = {name: operations / value / 1e9 for name, value in vars(timing).items()}
    return {"threads": threads, **rates}
