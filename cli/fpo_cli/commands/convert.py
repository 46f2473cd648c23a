"""`fpo convert`: autoencoders and adapters that others made."""

from pathlib import Path
from typing import Any

import typer

from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import ConvertAdapterConfig, ConvertConfig

_OPTIONS = (
    "format",
    "dtype",
    "encoder_only",
    "verify",
    "norm_factor",
    "centre",
    "k",
    "hook",
    "model_name",
    "untrained_tokens",
)


def convert_sae(config: ConvertConfig, ui: Ui) -> dict[str, Any]:
    """Convert a sparse autoencoder to the one file that the other commands read.

    The format is recognised; the options below state what a checkpoint leaves out or gets wrong.
    With --to sae-lens, SOURCE is such a file and --out a new folder that SAELens opens.
    """
    result = _export(config, ui) if config.to == "sae-lens" else _convert(config, ui)
    return {"command": "convert sae"} | result


def _export(config: ConvertConfig, ui: Ui) -> dict[str, Any]:
    from fpo_convert.export import export_sae_lens

    report = export_sae_lens(config.source, config.out)
    ui.say(
        f"{report.out}: {' and '.join(report.files)} for SAELens, {report.architecture}, float32, "
        f"{report.bytes / 2**20:.1f} MiB"
    )
    return report.to_dict()


def _convert(config: ConvertConfig, ui: Ui) -> dict[str, Any]:
    import fpo_convert.sae as converter

    options = {name: getattr(config, name) for name in _OPTIONS}
    report = converter.convert_sae(config.source, config.out, **options)
    for warning in report.warnings:
        ui.warn(warning)
    ui.say(
        f"{report.out}: {report.architecture}, d_in {report.d_in}, d_sae {report.d_sae}, "
        f"{report.hook or 'no hook named'}, {report.dtype}, {report.bytes / 2**20:.1f} MiB"
    )
    if report.relative_difference is not None:
        ui.say(f"checked against {report.format}: within {report.relative_difference:.1e}")
    return report.to_dict()


def convert_adapter(config: ConvertAdapterConfig, ui: Ui) -> dict[str, Any]:
    """Convert an adapter of PEFT's or mlx-lm's into a folder that the other, or both, open.

    LoRA, DoRA, rsLoRA and ranks or strengths per module; what only one library has is refused.
    """
    import fpo_convert.adapter as converter

    source, out = Path(config.source).expanduser(), Path(config.out).expanduser()
    report = converter.convert_adapter(source, out, to=config.to, model=config.model)
    ui.say(
        f"{report.out}: {report.fine_tune_type}, rank {report.rank}, scale {report.scale:g}, "
        f"{len(report.blocks)} blocks, {', '.join(report.modules)}"
    )
    return {"command": "convert adapter"} | report.to_dict()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    group = typer.Typer(name="convert", help="Convert what others published.", no_args_is_help=True)
    command(group, "sae", ConvertConfig, arguments=("source",))(convert_sae)
    command(group, "adapter", ConvertAdapterConfig, arguments=("source",))(convert_adapter)
    app.add_typer(group)
