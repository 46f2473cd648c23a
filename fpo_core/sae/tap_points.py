"""Which module of a transformer block a tap attaches to, for transformers' and mlx-lm's models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fpo_core.errors import SaeError

_ATTENTION = ("self_attn", "attn", "attention")
_ATTENTION_OUT = ("self_attn.o_proj", "attn.c_proj", "self_attn.dense", "attention.dense")


@dataclass(frozen=True)
class TapPoint:
    """A module path relative to the block (empty for the block), and which end to capture."""

    path: str
    end: Literal["input", "output"]


def tap_point(site: str, has: Callable[[str], bool]) -> TapPoint:
    """The module to capture for `site`; `has` says whether the block has a submodule.

    Gemma 2 and 3 and OLMo 2 normalise the output of attention and MLP before the residual add, and
    their hooks are after that norm. The residual between attention and MLP is the input of the
    norm before the MLP, or of the MLP in OLMo 2, which has none. Raises SaeError for an unknown
    site, or one that the block lacks.
    """
    post_norms = has("post_feedforward_layernorm")
    options: dict[str, tuple[tuple[str, ...], Literal["input", "output"]]] = {
        "resid_pre": (("",), "input"),
        "resid_post": (("",), "output"),
        "mlp_in": (("mlp",), "input"),
        "mlp_out": (("post_feedforward_layernorm",) if post_norms else ("mlp",), "output"),
        "attn_out": (("post_attention_layernorm",) if post_norms else _ATTENTION, "output"),
        "z": (_ATTENTION_OUT, "input"),
        "resid_mid": (_before_mlp(has, post_norms), "input"),
    }
    if site not in options:
        raise SaeError(f"the hook site {site!r} is unknown, expected one of {', '.join(options)}")
    paths, end = options[site]
    for path in paths:
        if path == "" or has(path):
            return TapPoint(path, end)
    raise SaeError(
        f"this model's blocks have no module for the hook site {site!r}, expected one that they "
        "have: use an autoencoder of another site, such as resid_post"
    )


def _before_mlp(has: Callable[[str], bool], post_norms: bool) -> tuple[str, ...]:
    if post_norms:
        return ("pre_feedforward_layernorm", "mlp")
    # GPT-NeoX computes attention and MLP in parallel: there is no residual between them.
    return () if has("attention.query_key_value") else ("post_attention_layernorm", "ln_2")
