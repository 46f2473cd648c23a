"""What folder and repository names say, where a format keeps layer, site or k nowhere else."""

import re

from fpo_core.sae.hook import Hook


def number(pattern: str, location: str) -> int | None:
    """The last whole number that `pattern`'s group finds in a path, or None."""
    found = re.findall(pattern, location)
    return int(found[-1]) if found else None


def hook_from(location: str, layer_pattern: str, sites: dict[str, str]) -> Hook | None:
    """A hook from a path: its layer by pattern, its site by the first key that occurs in it."""
    layer = number(layer_pattern, location)
    site = next((site for key, site in sites.items() if key in location), None)
    return None if layer is None or site is None else Hook(layer, site)


def chosen_hook(option: str | None, found: Hook | None) -> Hook | None:
    """The user's hook where given, else what the checkpoint says."""
    return Hook.parse(option) if option else found
