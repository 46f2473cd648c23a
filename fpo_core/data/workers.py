"""Tokenising on all cores in constant memory; the output does not depend on their number."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context

from fpo_core.data.report import SplitReport
from fpo_core.data.token_store import Packed
from fpo_core.data.tokenise import PairTokeniser
from fpo_core.errors import DataError
from fpo_core.pairs.pair import Pair

_ROWS_PER_CHUNK = 256
_CHUNKS_IN_PROCESS = 32
"""Up to this many chunks (8192 rows) take less time than starting processes."""

Tokenised = tuple[Packed, SplitReport]


def tokenise_all(
    pairs: Iterable[Pair], tokeniser: PairTokeniser, workers: int | None = None
) -> Iterator[Tokenised]:
    """Tokenise a stream of pairs chunk by chunk, in order.

    Many rows go to `workers` processes, by default one per core up to 8. They are spawned, so a
    script that calls this needs the `if __name__ == "__main__":` guard.
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
    """Submit at most two chunks per worker ahead, which bounds memory."""
    waiting: deque[Future[Tokenised]] = deque()
    # fork() would copy locks that threads of torch or mlx hold, and deadlock.
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
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each worker has one core
    _tokeniser = tokeniser


def _tokenise(chunk: Sequence[Pair]) -> Tokenised:
    assert _tokeniser is not None
    return _tokeniser(chunk)
