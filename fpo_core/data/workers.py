"""Tokenising on all cores, in order and with flat memory: the output never depends on how many."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context

from fpo_core.data.pairs import Pair
from fpo_core.data.report import SplitReport
from fpo_core.data.token_store import Packed
from fpo_core.data.tokenise import PairTokeniser
from fpo_core.errors import DataError

_ROWS_PER_CHUNK = 256
_CHUNKS_IN_PROCESS = 32
"""Up to this many chunks (8192 rows) are tokenised sooner than processes start."""

Tokenised = tuple[Packed, SplitReport]


def tokenise_all(
    pairs: Iterable[Pair], tokeniser: PairTokeniser, workers: int | None = None
) -> Iterator[Tokenised]:
    """Tokenise a stream of pairs chunk by chunk, in the order of the stream.

    Many rows go to `workers` processes (by default one per core), started afresh rather than
    forked: a script that calls this needs the `if __name__ == "__main__":` guard.
    """
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    chunks = _chunks(pairs)
    first = list(islice(chunks, _CHUNKS_IN_PROCESS + 1))
    if workers <= 1 or len(first) <= _CHUNKS_IN_PROCESS:
        return map(tokeniser, chain(first, chunks))
    return _in_processes(chain(first, chunks), tokeniser, workers)


def _chunks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    rows = iter(pairs)
    while chunk := list(islice(rows, _ROWS_PER_CHUNK)):
        yield chunk


def _in_processes(
    chunks: Iterable[list[Pair]], tokeniser: PairTokeniser, workers: int
) -> Iterator[Tokenised]:
    """Keep two chunks per worker under way, no more, so that nothing piles up."""
    waiting: deque[Future[Tokenised]] = deque()
    # A fork would copy the threads of torch and mlx in an unknown state.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, (tokeniser,))
    try:
        with pool:
            for chunk in chunks:
                waiting.append(pool.submit(_tokenise, chunk))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            "a process that tokenises rows died: free some memory, or start from a script "
            'with an `if __name__ == "__main__":` guard'
        ) from None


_tokeniser: PairTokeniser | None = None


def _start(tokeniser: PairTokeniser) -> None:
    global _tokeniser  # noqa: PLW0603
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _tokeniser = tokeniser


def _tokenise(chunk: Sequence[Pair]) -> Tokenised:
    assert _tokeniser is not None
    return _tokeniser(chunk)
