"""Writing canonical autoencoder files: hashed on the way, checked, complete or absent."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fpo_core.io.atomic import replacing
from fpo_core.io.writer import Header, Tensor, write_tensors
from fpo_core.sae.metadata import SaeMeta, header_sha256


def write_sae(
    path: str | Path,
    meta: SaeMeta,
    tensors: Sequence[Tensor],
    check: Callable[[Path], None] | None = None,
) -> str:
    """Write a canonical file and return the SHA-256 of its payload.

    Rows are generated in order, tensor after tensor, so later ones may depend on earlier ones.
    `check` sees the finished temporary file and may refuse it by raising. Raises SaeError for a
    number that is not finite, WriteError; nothing is left behind on any error.
    """
    with replacing(Path(path)) as temporary:
        payload_sha256 = write_tensors(temporary, tensors, meta.to_header(), _seal)
        if check:
            check(temporary)
    return payload_sha256


def _seal(header: Header, payload_sha256: str) -> Header:
    texts = header["__metadata__"] | {"payload_sha256": payload_sha256}
    sealed = header | {"__metadata__": texts}
    texts["header_sha256"] = header_sha256(sealed)
    return sealed
