"""The figures of docs/federated.md are those of the result files."""

from collections import Counter
from pathlib import Path

from benchmarks.federated_tables import PAGE, filled
from benchmarks.federated_world import SAMPLES, with_forms
from benchmarks.record import read_result
from fpo.world import assets


def test_the_table_of_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, read_result("federated"), read_result("federated-processes")) == page


def test_the_prompts_of_the_page(tmp_path: Path) -> None:
    forms = Counter(row["form"] for row in with_forms(assets().valid, tmp_path / "rows.jsonl"))
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    said = "{json} of JSON pairs, {french} of French, {plain} of plain ones".format(**forms)
    assert said in page
    assert f"{SAMPLES} samples a client at least" in page
