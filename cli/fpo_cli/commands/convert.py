"""`fpo convert sae`: a published autoencoder to the canonical file, or that to SAELens."""

from typing import Any

import typer

from fpo_cli.command import command
from fpo_cli.ui import Ui
from fpo_core.config import ConvertConfig

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


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    group = typer.Typer(name="convert", help="Convert what others published.", no_args_is_help=True)
    command(group, "sae", ConvertConfig, arguments=("source",))(convert_sae)
    app.add_typer(group)
