"""`fpo fuse`: an adapter merged into its model."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import FuseConfig


@command("fuse")
def fuse(config: FuseConfig, ui: Ui) -> "fpo.FusedModel":
    """Merge an adapter into its model, for transformers and mlx-lm alike.

    The result is kept only if its logits on a probe are those of model and adapter. A base that
    mlx-lm quantised is dequantised.
    """
    result = ui.run(fpo.fuse, config)
    quantised = ", dequantised" if result.dequantised else ""
    ui.say(
        f"{result.out}: {', '.join(result.dtypes)}{quantised}, {result.bytes / 2**20:.1f} MiB; "
        f"logits within {result.check.largest:.1e} of the adapter's, which moves its base by "
        f"{result.check.moved:.1e}"
    )
    return result
