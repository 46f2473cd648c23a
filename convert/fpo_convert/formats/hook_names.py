"""Hooks out of folder and repository names, where a format keeps layer and site nowhere else."""

import re

from fpo_core.sae.hook import Hook


def hook_from(location: str, layer_pattern: str, sites: dict[str, str]) -> Hook | None:
    """A hook from a path: its layer by the pattern's last match, its site by the first key in it.

    The first group of `layer_pattern` is the layer. None where either is missing.
    """
    layers = re.findall(layer_pattern, location)
    site = next((site for key, site in sites.items() if key in location), None)
    return Hook(int(layers[-1]), site) if layers and site else None
