"""Converting a checkpoint to a canonical file, and reading the metadata of such a file."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo_convert.detect import read_source
from fpo_convert.fold import canonical_meta, canonical_tensors
from fpo_convert.source_formula import Options, Source
from fpo_convert.verify import Comparison, compare, refuse_if_wrong
from fpo_core.errors import SaeError
from fpo_core.io.digests import file_sha256
from fpo_core.io.ownership import check_foreign, check_inputs
from fpo_core.io.reader import open_safetensors
from fpo_core.sae.metadata import SaeMeta, parse_meta
from fpo_core.sae.sae import check_payload, is_sae_file, load_sae
from fpo_core.sae.writer import write_sae

_COPIED = ("architecture", "input_transform", "d_in", "d_sae", "k", "model_name", "payload_sha256")


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
    `release/sae_id`. The settings after `verify` replace what a checkpoint omits or gets wrong.
    Raises SaeError, leaving nothing behind, for anything malformed or unsupported.
    """
    start = time.perf_counter()
    options = Options(norm_factor, centre, k, hook, model_name, untrained_tokens=untrained_tokens)
    read, origin = read_source(str(source), format, options)
    path = Path(out)
    if path.is_dir():
        raise SaeError(
            f"{path} is a folder, expected a file name such as {path}/sae.safetensors: give one"
        )
    check_inputs([path], {"source": str(source)}, "out")
    check_foreign([path], is_sae_file, "out")
    # Numbers that are not finite are refused when written: NumPy need not warn of them before.
    with np.errstate(all="ignore"):
        meta, comparison = _write(
            path, read, origin, dtype=dtype, encoder_only=encoder_only, verify=verify
        )
    return ConversionReport(
        **{name: getattr(meta, name) for name in _COPIED},
        source=str(source),
        out=str(path),
        format=read.format,
        hook=str(meta.hook) if meta.hook else None,
        untrained_tokens=list(meta.untrained_tokens),
        dtype=dtype,
        decoder=read.has_decoder and not encoder_only,
        folded=list(meta.folded),
        warnings=list(read.warnings),
        bytes=path.stat().st_size,
        source_sha256=meta.source["sha256"],
        seconds=time.perf_counter() - start,
        relative_difference=comparison.relative_difference if comparison else None,
        flips=comparison.flips if comparison else None,
        unexplained_flips=comparison.unexplained_flips if comparison else None,
    )


def _write(
    path: Path,
    source: Source,
    origin: dict[str, Any],
    *,
    dtype: str,
    encoder_only: bool,
    verify: bool,
) -> tuple[SaeMeta, Comparison | None]:
    tensors = canonical_tensors(source, dtype, encoder_only=encoder_only)
    file = {"format": source.format, "file": source.where.name}
    meta = canonical_meta(source, file | {"sha256": file_sha256(source.where)} | origin)
    comparison = None

    def check(written: Path) -> None:
        nonlocal comparison
        comparison = compare(source, written)
        refuse_if_wrong(comparison, dtype)

    payload_sha256 = write_sae(path, meta, tensors, check if verify else None)
    return dataclasses.replace(meta, payload_sha256=payload_sha256), comparison


def sae_info(path: str | Path, *, verify: bool = False) -> dict[str, Any]:
    """The metadata of a canonical file, as a JSON object.

    `verify` recomputes the payload's hash. Raises SaeError where it differs or the file is
    malformed.
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
        "bytes": file.path.stat().st_size,
        "verified": verify,
    }
