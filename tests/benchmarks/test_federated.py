"""The figures of docs/federated.md are those of the result files."""

from benchmarks.federated_tables import PAGE, filled
from benchmarks.record import read_result


def test_the_table_of_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, read_result("federated"), read_result("federated-processes")) == page
