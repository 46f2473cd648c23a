"""Autoencoders and adapters of others, converted, described and listed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpo.results import Result, Table
from fpo.workflow import workflow
from fpo_core.config import ConvertAdapterConfig, ConvertConfig, SaeInfoConfig, SaeListConfig
from fpo_core.events import Sink, warn

if TYPE_CHECKING:
    from fpo_convert.adapter import AdapterReport
    from fpo_convert.export import ExportReport
    from fpo_convert.published import Published
    from fpo_convert.sae import ConversionReport


@dataclass(frozen=True)
class ConvertedSae(Result):
    """A converted autoencoder: `out`, ready for the setting `sae`, and the converter's report."""

    out: Path
    report: "ConversionReport | ExportReport"

    def to_mapping(self) -> dict[str, Any]:
        """The report as JSON values."""
        return self.report.to_dict()


@dataclass(frozen=True)
class ConvertedAdapter(Result):
    """A converted adapter: `out`, ready for the setting `adapter`, and the converter's report."""

    out: Path
    report: "AdapterReport"

    def to_mapping(self) -> dict[str, Any]:
        """The report as JSON values."""
        return self.report.to_dict()


@dataclass(frozen=True)
class SaeInfo(Result):
    """What an autoencoder's file says of itself."""

    values: Mapping[str, Any]

    def table(self) -> Table:
        """A property a row."""
        return Table(("", ""), [(name, _shown(value)) for name, value in self.values.items()])

    def to_mapping(self) -> dict[str, Any]:
        """The properties as JSON values."""
        return dict(self.values)


@dataclass(frozen=True)
class PublishedSaes(Result):
    """Published autoencoders that fit a model, the recommended one first."""

    trained_on: str
    """The model that the recommended one, or the first, was trained on."""
    exact: bool
    """Whether that is the model itself, rather than one of its family or shape."""
    saes: list["Published"]
    """All of them, the fittest first."""
    rows: int = 0
    """How many of them the table shows; 0 is all."""

    def table(self) -> Table:
        """An autoencoder a row, an arrow before the recommended one."""
        shown = self.saes[: self.rows] if self.rows else self.saes
        hidden = len(self.saes) - len(shown)
        rows = [
            (
                "→" if sae.recommended else " ",
                str(sae.layer),
                sae.site,
                str(sae.width or "?"),
                sae.l0,
                "?" if sae.encoder_bytes is None else f"{sae.encoder_bytes / 2**20:.0f} MiB",
                "" if sae.exact else sae.trained_on,
                sae.source,
            )
            for sae in shown
        ]
        names = ("", "layer", "site", "d_sae", "L0", "encoder", "another model's", "source")
        return Table(names, rows, (f"{hidden} more, less fit",) if hidden else ())

    def to_mapping(self) -> dict[str, Any]:
        """The list as JSON values."""
        return {"trained_on": self.trained_on, "saes": [asdict(sae) for sae in self.saes]}


@workflow(ConvertConfig)
def convert_sae(config: ConvertConfig, sink: Sink) -> ConvertedSae:
    """Convert a sparse autoencoder to the one file that training reads.

    The format is recognised; settings state what a checkpoint leaves out or gets wrong. With
    `to="sae-lens"`, `source` is such a file and `out` a new folder that SAELens opens. Raises
    SaeError for what cannot be converted, or does not compute what the source's formula does.
    """
    if config.to == "sae-lens":
        # Imported here: converters load only what their direction needs.
        from fpo_convert.export import export_sae_lens

        exported = export_sae_lens(config.source, config.out)
        return ConvertedSae(Path(exported.out), exported)
    import fpo_convert.sae as converter

    options = config.to_mapping()
    for name in ("to", "backend"):
        del options[name]
    report = converter.convert_sae(**options)
    for text in report.warnings:
        warn(sink, text)
    return ConvertedSae(Path(report.out), report)


@workflow(ConvertAdapterConfig)
def convert_adapter(config: ConvertAdapterConfig) -> ConvertedAdapter:
    """Convert an adapter of PEFT's or mlx-lm's into a folder that the other, or both, open.

    LoRA, DoRA, rsLoRA and ranks or strengths per module; what only one library has raises
    ModelError.
    """
    import fpo_convert.adapter as converter

    source, out = Path(config.source).expanduser(), Path(config.out).expanduser()
    report = converter.convert_adapter(source, out, to=config.to, model=config.model)
    return ConvertedAdapter(Path(report.out), report)


@workflow(SaeInfoConfig)
def sae_info(config: SaeInfoConfig) -> SaeInfo:
    """What a converted autoencoder is, and where it came from."""
    import fpo_convert.sae as converter

    return SaeInfo(converter.sae_info(config.file, verify=config.verify))


@workflow(SaeListConfig)
def list_saes(config: SaeListConfig, sink: Sink) -> PublishedSaes:
    """Published autoencoders that fit a model, the recommended one first, then by fitness.

    Pass a source to `convert_sae`. Fit is what was trained on the model itself, on its residual
    stream, deep, with about 16,384 features of which about 100 fire. Recommended is the fittest of
    the residual stream that reads what the trained blocks write.
    """
    from fpo_convert import published

    listing = published.list_saes(config.model, config.num_layers)
    if not listing.exact:
        warn(
            sink,
            f"the first was trained on activations of {listing.trained_on}, of whose family or "
            f"shape {config.model} is: check how well one fits before training with it",
        )
    return PublishedSaes(listing.trained_on, listing.exact, listing.saes, config.rows)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
