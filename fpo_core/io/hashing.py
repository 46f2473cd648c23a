"""The bytes behind a header on their way into a file, and their hash."""

import errno
import hashlib
import os
from typing import BinaryIO


class Payload:
    """Appends to a file, and hashes what passes while a processor's cache has it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def write(self, data: memoryview) -> None:
        """Append bytes."""
        self._digest.update(data)
        self._file.write(data)

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
