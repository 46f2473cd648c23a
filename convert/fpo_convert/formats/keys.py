"""The keys of a checkpoint's configuration that a reader understands; what it does about others."""

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fpo_core.errors import SaeError

# Parts of names that settings of the encoder have, and few others.
_MATHEMATICAL = re.compile(
    r"activ|act_?fn|arch|bias|b_dec|b_enc|bos|cent(er|re)|clamp|decod|encod|gat(e|ing)|glu|group"
    r"|hook|jump|mean|norm|pre_?proc|post|relu|rescal|rotat|scal|sign|skip|spars|std|subtract"
    r"|thresh|tied|token|top_?k|transcod|transform|transpos|unit|whiten"
)
_ALIKE = 0.75


def refuse_unknown(
    path: Path,
    cfg: Mapping[str, Any],
    understood: Collection[str],
    *,
    ignored: Collection[str] = (),
    defaulted: Collection[str] = (),
    free: bool = False,
) -> None:
    """Raise SaeError for a key that may change what is computed and that the reader doesn't know.

    `understood` are the keys that the reader obeys, `ignored` those of the format that don't touch
    the encoder, `defaulted` the understood ones that may be absent. Any other key is refused where
    its name speaks of mathematics or is like an understood one, and where a defaulted key is
    absent, since it may be that one renamed. A key without a value says nothing, and what speaks of
    mathematics in a `free` mapping, which nobody computes by, neither.
    """
    absent = [key for key in defaulted if key not in cfg]
    for key in sorted(set(cfg) - set(understood) - set(ignored)):
        if cfg[key] is None:
            continue
        meant = difflib.get_close_matches(key, understood, 1, _ALIKE) or absent
        if meant or (not free and _MATHEMATICAL.search(key.lower())):
            hint = f" (or is {meant[0]} meant?)" if meant else ""
            raise SaeError(
                f"{path} has {key} {cfg[key]!r}, which may change what is computed and is not "
                f"known here, expected keys of the format{hint}: remove it if it does not, else "
                "use another checkpoint"
            )


def refuse_values(path: Path, cfg: Mapping[str, Any], allowed: Mapping[str, Collection]) -> None:
    """Raise SaeError for a key whose value is none of those allowed; an absent key says nothing."""
    for key, values in allowed.items():
        if key in cfg and not any(cfg[key] is v or cfg[key] == v for v in values):
            known = ", ".join(repr(value) for value in values)
            raise SaeError(
                f"{path} has {key} {cfg[key]!r}, expected {known}: use such a checkpoint"
            )
