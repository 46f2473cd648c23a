"""The bytes behind a header on their way to the disk, and their hash."""

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Self

from fpo_core.safetensors_file import WINDOW_BYTES, map_bytes

_FLUSH_BYTES = 16 << 20


class Payload:
    """Appends to a named file, while a thread hashes what is there and has it go to the disk.

    Hashing is slower than writing. It reads from the file, so that neither holds the other up and
    the writer's arrays can be used again at once.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ends = SimpleQueue[int | None]()
        self._shown = file.tell()
        self._pool = ThreadPoolExecutor(2)
        self._sha256 = self._pool.submit(self._follow, self._shown)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.put(None)
        self._pool.shutdown()

    def write(self, data: memoryview) -> None:
        """Append bytes."""
        self._file.write(data)
        if self._file.tell() - self._shown >= WINDOW_BYTES:
            self.flush()

    def flush(self) -> None:
        """Have all that was written found by those who read the file."""
        self._file.flush()
        self._shown = self._file.tell()
        self._ends.put(self._shown)

    def sha256(self) -> str:
        """The hash of all that was written; nothing may be written after that."""
        self.flush()
        self._ends.put(None)
        return self._sha256.result()

    def _follow(self, begin: int) -> str:
        """SHA-256 from `begin` on, up to each end as it comes."""
        digest, path, flushed = hashlib.sha256(), Path(self._file.name), begin
        for end in iter(self._ends.get, None):
            digest.update(map_bytes(path, begin, end - begin).data)
            begin = end
            if end - flushed >= _FLUSH_BYTES:
                self._pool.submit(_start_to_disk, self._file, flushed, end)
                flushed = end
        return digest.hexdigest()


def reserve(file: BinaryIO, size: int) -> None:
    """Have room for a file's bytes found at once, which costs less than piece by piece.

    Raises OSError where the disk is too full. Systems that can't do it go without.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise


def _start_to_disk(file: BinaryIO, begin: int, end: int) -> None:
    """Have bytes go to the disk meanwhile.

    Linux starts to write out what is said to be needed no more, and keeps it until that is done.
    Elsewhere the fsync at the end does it all.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)
