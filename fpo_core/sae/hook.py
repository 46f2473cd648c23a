"""Where in a model an autoencoder reads: a layer and a site within its block."""

import re
from dataclasses import dataclass
from typing import Self

from fpo_core.errors import SaeError

_SITES = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "mlp_in": "mlp.hook_in",
    "z": "attn.hook_z",
}
SITES = tuple(_SITES)
"""Input, middle and output of a block; outputs of attention and MLP; the MLP's own input; the
concatenated heads before the output projection."""

# `hook_mlp_in` is left out: TransformerLens means the residual before the norm, others after it.
# Module paths of transformers and mlx-lm, below the block, that name the same places.
_MODULES = {
    "": "resid_post",
    "output": "resid_post",
    "input": "resid_pre",
    "self_attn": "attn_out",
    "self_attn.output": "attn_out",
    "self_attn.o_proj.input": "z",
    "post_attention_layernorm.output": "attn_out",
    "mlp": "mlp_out",
    "mlp.output": "mlp_out",
    "mlp.input": "mlp_in",
    "pre_feedforward_layernorm.output": "mlp_in",
    "post_feedforward_layernorm.output": "mlp_out",
}
_BY_SUFFIX = {name: site for site, name in _SITES.items()}
_LENS = re.compile(r"blocks\.(\d{1,4})\.([a-z_.0-9]+)")
_MODULE = re.compile(
    r"(?:model\.)*(?:language_model\.)?(?:model\.)?(?:layers|transformer\.h|h|gpt_neox\.layers)"
    r"\.(\d{1,4})(?:\.([a-z_.]+))?"
)


@dataclass(frozen=True)
class Hook:
    """A place in a model: block number from 0, and one of SITES."""

    layer: int
    site: str

    def __post_init__(self) -> None:
        if self.site not in _SITES or self.layer < 0:
            raise SaeError(
                f"hook site {self.site!r} of layer {self.layer} is unknown, expected a layer from "
                f"0 and one of {', '.join(SITES)}: correct the hook"
            )

    def __str__(self) -> str:
        return f"blocks.{self.layer}.{_SITES[self.site]}"

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read `blocks.N.hook_…` or a module path such as `model.layers.N`, which is resid_post.

        Raises SaeError for a name that denotes no place this package can tap.
        """
        for pattern, sites in ((_LENS, _BY_SUFFIX), (_MODULE, _MODULES)):
            found = pattern.fullmatch(name)
            if found and (found[2] or "") in sites:
                return cls(int(found[1]), sites[found[2] or ""])
        raise SaeError(
            f"hook {name!r} is not supported, expected blocks.N.X with X among "
            f"{', '.join(_SITES.values())}, or model.layers.N: use an autoencoder of such a place, "
            "or give the right name with --hook"
        )
