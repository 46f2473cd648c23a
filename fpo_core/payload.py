"""The bytes behind a header on their way to the disk, and their hash."""

import errno
import hashlib
import os
from typing import BinaryIO

_FLUSH_BYTES = 16 << 20


class Payload:
    """Appends to a file, hashes what passes while a processor's cache has it, and has it go to the
    disk meanwhile.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._flushed = file.tell()

    def write(self, data: memoryview) -> None:
        """Append bytes."""
        self._digest.update(data)
        self._file.write(data)
        if self._file.tell() - self._flushed >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Have all that was written found by those who read the file."""
        self._file.flush()
        end = self._file.tell()
        _start_to_disk(self._file, self._flushed, end)
        self._flushed = end

    def sha256(self) -> str:
        """The hash of all that was written."""
        return self._digest.hexdigest()


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
