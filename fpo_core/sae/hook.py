"""`Hook`: where in a model an autoencoder reads, as a layer and a site within its block."""

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
"""The residual stream before the block, before the MLP and after the block; the outputs of
attention and MLP; the MLP's normalised input; the concatenated heads before the output projection.
"""

# `hook_mlp_in` is missing on purpose: TransformerLens means the residual before the norm by it,
# other libraries the normalised input.
# Module paths of transformers and mlx-lm, relative to the block, for the same sites.
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
_TRANSFORMER_LENS = re.compile(r"blocks\.(\d{1,4})\.([a-z_.0-9]+)")
_MODULE_PATH = re.compile(
    r"(?:model\.)*(?:language_model\.)?(?:model\.)?(?:layers|transformer\.h|h|gpt_neox\.layers)"
    r"\.(\d{1,4})(?:\.([a-z_.]+))?"
)


@dataclass(frozen=True)
class Hook:
    """The activation that an autoencoder reads: block number from 0, and one of SITES."""

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

        Raises SaeError for any other name.
        """
        for pattern, sites in ((_TRANSFORMER_LENS, _BY_SUFFIX), (_MODULE_PATH, _MODULES)):
            match = pattern.fullmatch(name)
            if match and (match[2] or "") in sites:
                return cls(int(match[1]), sites[match[2] or ""])
        raise SaeError(
            f"hook {name!r} is not supported, expected blocks.N.X with X among "
            f"{', '.join(_SITES.values())}, or model.layers.N: use an autoencoder of one of "
            "these, or set hook to the right name"
        )
