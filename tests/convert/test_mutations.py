"""Mutated files; set FPO_MUTATIONS=10000 for the full run (benchmarks/bench_convert.py does)."""

import os

from tests.convert.mutations import Fuzzer


def test_mutated_files_are_refused_or_mean_the_same(tmp_path):
    outcomes = Fuzzer(tmp_path / "fuzz").run(int(os.environ.get("FPO_MUTATIONS", "250")))
    assert any(key.startswith("source_structure: refused") for key in outcomes)
    assert any(key.startswith("canonical_structure: refused") for key in outcomes)
