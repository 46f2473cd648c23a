"""What a run's record shows of the reference, so that it need not be computed again."""

from pathlib import Path
from typing import Any

import numpy as np

from fpo.reporting.record import NOT_A_RECORD, PER_NAT, RECORD_FILE, Record, damaged
from fpo_core.data.inspect import TokenTexts
from fpo_core.data.token_store import Int64s, TokenisedPair, TokenisedPairs

Known = dict[int, list[np.ndarray]]
"""log π_ref of the tokens of chosen and rejected, in nats to a thousandth, by a pair's place."""


def known_reference(
    folder: Path, record: Record | None, split: TokenisedPairs, rows: Int64s, tokenizer: Any
) -> Known:
    """The pairs among `rows` of a split that the record shows, those whose texts are the same.

    Raises ConfigError for a damaged record.
    """
    if record is None:
        return {}
    texts = TokenTexts(tokenizer)

    def shows(shown: Record, pair: TokenisedPair) -> bool:
        prompt = tokenizer.decode(pair.prompt, skip_special_tokens=True)
        return shown["prompt"] == prompt and all(
            [record["vocabulary"][token] for token in side["tokens"]]
            == texts(ids[len(ids) - len(side["tokens"]) :].tolist())
            for side, ids in ((shown["chosen"], pair.chosen), (shown["rejected"], pair.rejected))
        )

    try:
        pairs = {pair["row"]: pair for pair in record.get("pairs", ())}
        return {
            place: [np.array(shown[side]["before"]) / PER_NAT for side in ("chosen", "rejected")]
            for place, pair in enumerate(split[int(row)] for row in rows)
            if (shown := pairs.get(pair.row)) and shows(shown, pair)
        }
    except NOT_A_RECORD as error:
        raise damaged(folder / RECORD_FILE, error) from None
