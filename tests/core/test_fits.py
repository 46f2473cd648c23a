"""The README's table of what fits is what its script computes."""

from pathlib import Path

from benchmarks.fits import GIB, KINDS, SHAPES, Shape, best, table


def test_the_readme_shows_the_computed_table():
    assert table() in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_largest_part_is_the_weights():
    """Eight billion parameters: 16 GB in bfloat16, 4.5 GB in 4 bits, 144 GB in full training."""
    shape = Shape("eight", 8e9, 32, 4096, 14336)
    rest = shape.needed("full") - 18 * 8e9
    assert 0 < rest < 3 * GIB
    for kind, bytes_each in (("lora", 2.0), ("4-bit", 4.5 / 8)):
        # 32 blocks × rank 8 × (8 · 4096 + 3 · 18432) parameters of 16 bytes
        adapters = 16 * 32 * 8 * (8 * 4096 + 3 * (4096 + 14336))
        assert shape.needed(kind) == bytes_each * 8e9 + adapters + rest


def test_the_most_demanding_kind_that_fits_is_shown():
    needed = {"full": 10.0, "lora": 5.0, "4-bit": 3.0}
    assert [best(needed, memory) for memory in (2, 4, 8, 16)] == ["–", "4-bit", "lora", "full"]


def test_every_kind_takes_less_than_the_one_before():
    for shape in SHAPES:
        sizes = [shape.needed(kind) for kind in KINDS]
        assert sizes == sorted(sizes, reverse=True), shape.name
