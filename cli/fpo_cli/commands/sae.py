"""`fpo sae`: what an autoencoder is, which are published, how well one fits, what features tell."""

from typing import Any

import typer

from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeCheckConfig, SaeFeaturesConfig, SaeInfoConfig, SaeListConfig


def sae_info(config: SaeInfoConfig, ui: Ui) -> dict[str, Any]:
    """Show what an autoencoder made by `fpo convert sae` is, and where it came from."""
    import fpo_convert.sae as converter

    info = converter.sae_info(config.file, verify=config.verify)
    width = max(map(len, info))
    for name, value in info.items():
        ui.say(f"{name:<{width}}  {_shown(value)}")
    return {"command": "sae info"} | info


def sae_list(config: SaeListConfig, ui: Ui) -> dict[str, Any]:
    """Show published autoencoders that fit a model, the recommended one first.

    Pass a source to `fpo convert sae`. Recommended is the deepest residual one that reads what the
    trained blocks write.
    """
    from dataclasses import asdict

    from fpo_convert.published import list_saes

    found = list_saes(config.model, config.num_layers)
    ui.say("   layer  site        d_sae   L0      encoder   source")
    for sae in found.saes:
        mark, size = "→" if sae.recommended else " ", f"{sae.encoder_bytes / 2**20:.0f} MiB"
        ui.say(
            f"{mark}  {sae.layer:<5}  {sae.site:<10}  {sae.width:<6}  {sae.l0:<6}  {size:<8}  "
            f"{sae.source}"
        )
    if not found.exact:
        ui.warn(
            f"{config.model} has the shape of {found.trained_on}, on which these were trained: "
            "check the fit with `fpo sae check`"
        )
    saes = [asdict(sae) for sae in found.saes]
    return {"command": "sae list", "trained_on": found.trained_on, "saes": saes}


def sae_features(config: SaeFeaturesConfig, ui: Ui) -> dict[str, Any]:
    """Rank features by how much more they fire on one set of texts than on another.

    The difference is that of mean features. With --out, the first --top of them become a file for
    `fpo train --feature-weights`, whose D compares just these.
    """
    from fpo.feature_ranking import rank_features

    return {"command": "sae features"} | rank_features(config, ui)


def sae_check(config: SaeCheckConfig, ui: Ui) -> dict[str, Any]:
    """Measure how well an autoencoder explains a model on your data, and say whether it fits.

    The first pairs are read twice: as raw text, and under the model's chat template.
    """
    from fpo.sae_fit import check_sae

    return {"command": "sae check"} | check_sae(config, ui)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    group = typer.Typer(name="sae", help="Look at autoencoders.", no_args_is_help=True)
    command(group, "info", SaeInfoConfig, arguments=("file",))(sae_info)
    command(group, "list", SaeListConfig)(sae_list)
    command(group, "features", SaeFeaturesConfig)(sae_features)
    command(group, "check", SaeCheckConfig, arguments=("sae",))(sae_check)
    app.add_typer(group)
