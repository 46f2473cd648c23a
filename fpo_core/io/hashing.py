"""SHA-256 of files: of all their bytes, or of samples where only a change must show."""

import hashlib
from pathlib import Path

from fpo_core.io.regular import open_regular

_PIECE = 1 << 20
"""Bytes read at once: a processor's cache holds them."""


def file_sha256(path: Path, begin: int = 0) -> str:
    """SHA-256 of a file's bytes from `begin` on, in hexadecimal; OSError unless it is regular."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        file.seek(begin)
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def sampled_sha256(paths: list[Path], samples: int = 64, chunk: int = 1 << 16) -> str:
    """SHA-256 over names, sizes and evenly spaced pieces of files: fast on gigabytes of weights.

    Small files enter whole. Training moves every piece of a weight file, so a changed model shows.
    """
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            if size <= samples * chunk:
                digest.update(file.read())
                continue
            for i in range(samples):
                file.seek(i * (size - chunk) // (samples - 1))
                digest.update(file.read(chunk))
    return digest.hexdigest()
