"""The comparison with sae-lens: its bars, and the document's table out of its results."""

import json

from benchmarks.compare_saelens import DOCS, OUT, table

RESULT = json.loads(OUT.read_text())


def test_the_document_has_the_table_of_the_results():
    assert table(RESULT) in DOCS.read_text(encoding="utf-8")


def test_the_bars():
    loaders = RESULT["loaders"].values()
    assert sum(tally["autoencoders"] for tally in loaders) == 13857
    assert sum(tally["converted"] for tally in loaders) >= 13850
    for tally in (*loaders, *RESULT["architectures"].values()):
        assert max(tally["encode_error"], tally["decode_error"], tally["fvu_error"]) < 1e-5
        assert tally["flips"] == 0
    assert set(RESULT["loaders"]["temporal"]["refused"]) == {
        "temporal-sae-gemma-2-2b/blocks.12.hook_resid_post",
        "temporal-sae-llama-3.1-8b/blocks.15.hook_resid_post",
        "temporal-sae-llama-3.1-8b/blocks.26.hook_resid_post",
    }
