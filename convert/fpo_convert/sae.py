"""`fpo convert sae` and `fpo sae info`: any supported checkpoint to a canonical file."""

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo_convert.detect import read_source
from fpo_convert.fold import canonical_meta, plans
from fpo_convert.row_readers import WholeTensor
from fpo_convert.source_formula import Options, Source
from fpo_convert.verify import Comparison, compare, refuse_if_wrong
from fpo_core.errors import SaeError
from fpo_core.io.reader import file_windows, open_safetensors
from fpo_core.sae.metadata import SaeMeta, parse_meta
from fpo_core.sae.sae import check_payload, load_sae
from fpo_core.sae.writer import write_sae

_NO_HASH = "0" * 64


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion did, in plain values.

    `relative_difference` and the flips compare the canonical file with the source's own formula on
    random inputs; they are None without verification.
    """

    source: str
    out: str
    format: str
    architecture: str
    input_transform: str
    d_in: int
    d_sae: int
    k: int | None
    hook: str | None
    model_name: str
    untrained_tokens: list[str]
    dtype: str
    decoder: bool
    folded: list[str]
    warnings: list[str]
    bytes: int
    source_sha256: str
    payload_sha256: str
    seconds: float
    relative_difference: float | None
    flips: int | None
    unexplained_flips: int | None

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return dataclasses.asdict(self)


def convert_sae(
    source: str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    dtype: str = "float32",
    encoder_only: bool = False,
    verify: bool = True,
    norm_factor: float | None = None,
    centre: bool | None = None,
    k: int | None = None,
    hook: str | None = None,
    model_name: str | None = None,
    untrained_tokens: Sequence[str] | None = None,
) -> ConversionReport:
    """Convert a published autoencoder to the canonical file `out`.

    `source` is a folder or file, `user/repo[:path][@revision]` of the hub, or a SAELens
    `release/sae_id`. The options after `verify` state what a checkpoint leaves out or gets wrong.
    Raises SaeError, leaving nothing behind, for anything malformed or unsupported.
    """
    start = time.perf_counter()
    options = Options(norm_factor, centre, k, hook, model_name)
    found, origin = read_source(str(source), format, options)
    if untrained_tokens is not None:
        found = dataclasses.replace(found, untrained_tokens=tuple(untrained_tokens))
    path = Path(out)
    if path.is_dir():
        raise SaeError(
            f"{path} is a folder, expected a file name: give --out {path}/sae.safetensors"
        )
    # Numbers that are not finite are refused when written, so NumPy need not warn of them before.
    with ThreadPoolExecutor(1) as pool, np.errstate(all="ignore"):
        comparison = _write(
            path, found, origin, pool, dtype=dtype, encoder_only=encoder_only, verify=verify
        )
    meta = parse_meta(path, open_safetensors(path).header)
    decoder = found.has_decoder and not encoder_only
    return _report(
        str(source), path, found, meta, comparison, dtype=dtype, decoder=decoder, start=start
    )


def _write(
    path: Path,
    found: Source,
    origin: dict[str, Any],
    pool: Executor,
    *,
    dtype: str,
    encoder_only: bool,
    verify: bool,
) -> Comparison | None:
    origin = {"format": found.format, "file": found.where.name, "sha256": _NO_HASH} | origin
    meta = canonical_meta(found, origin)
    sha = pool.submit(_sha256, found.where)

    def late() -> SaeMeta:
        return dataclasses.replace(meta, source=origin | {"sha256": sha.result()})

    comparisons: list[Comparison] = []

    def check(written: Path) -> None:
        with np.errstate(all="ignore"):  # a setting of each thread
            comparisons.append(compare(found, written))
        refuse_if_wrong(comparisons[0], dtype)

    # Tensors that can only be loaded whole come one at a time, or they would fill the memory.
    whole = any(isinstance(tensor, WholeTensor) for tensor in found.tensors.values())
    write_sae(
        path,
        meta,
        plans(found, dtype, encoder_only=encoder_only),
        late=late,
        check=check if verify else None,
        beside=None if whole else pool,
    )
    return comparisons[0] if verify else None


def sae_info(path: str | Path, *, verify: bool = False) -> dict[str, Any]:
    """What a canonical file says about itself, as a JSON object.

    With `verify`, the payload's hash is recomputed. Raises SaeError where it differs, or for a file
    that is malformed.
    """
    file = open_safetensors(path)
    meta = parse_meta(file.path, file.header)
    load_sae(path, verify=False)
    if verify:
        check_payload(file, meta)
    return {
        "file": str(path),
        **{field.name: getattr(meta, field.name) for field in dataclasses.fields(meta)},
        "hook": str(meta.hook) if meta.hook else None,
        "untrained_tokens": list(meta.untrained_tokens),
        "folded": list(meta.folded),
        "source": dict(meta.source),
        "dtype": file.entries["W_enc"].dtype,
        "decoder": "W_dec" in file.entries,
        "bytes": file.size,
        "verified": verify,
    }


def _report(
    source: str,
    path: Path,
    found: Source,
    meta: SaeMeta,
    comparison: Comparison | None,
    *,
    dtype: str,
    decoder: bool,
    start: float,
) -> ConversionReport:
    return ConversionReport(
        source=source,
        out=str(path),
        format=found.format,
        architecture=meta.architecture,
        input_transform=meta.input_transform,
        d_in=meta.d_in,
        d_sae=meta.d_sae,
        k=meta.k,
        hook=str(meta.hook) if meta.hook else None,
        model_name=meta.model_name,
        untrained_tokens=list(meta.untrained_tokens),
        dtype=dtype,
        decoder=decoder,
        folded=list(meta.folded),
        warnings=list(found.warnings),
        bytes=path.stat().st_size,
        source_sha256=meta.source["sha256"],
        payload_sha256=meta.payload_sha256,
        seconds=time.perf_counter() - start,
        relative_difference=comparison.relative_difference if comparison else None,
        flips=comparison.flips if comparison else None,
        unexplained_flips=comparison.unexplained_flips if comparison else None,
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for window in file_windows(path):
        digest.update(window.data)
    return digest.hexdigest()
