"""The tables of docs/zeroth-order.md are those of the result file."""

from benchmarks.record import read_result
from benchmarks.zeroth_order_tables import PAGE, filled


def test_the_tables_of_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, read_result("zeroth_order")) == page


def test_the_defaults_of_the_page() -> None:
    from fpo_core.config import OptimiserConfig

    page = PAGE.read_text(encoding="utf-8")
    for name, row in (("rank", "r | 2"), ("interval", "ν | 50"), ("epsilon", "ε | 1e-3")):
        config = OptimiserConfig(optimizer="lozo-m")
        assert f"`--zo-{name}` {row} |" in page
        assert float(row.split()[-1]) == config.direction(f"zo_{name}")  # pyright: ignore
    assert "`--zo-momentum` μ | 0.9 |" in page
    assert config.direction("zo_momentum") == 0.9
