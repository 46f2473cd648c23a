"""Where each hook site sits in the blocks of several families."""

import pytest

from fpo_core.errors import SaeError
from fpo_core.sae.hook import SITES
from fpo_core.sae.tap_points import TapPoint, tap_point

LLAMA = {"self_attn", "self_attn.o_proj", "mlp", "input_layernorm", "post_attention_layernorm"}
GEMMA2 = LLAMA | {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
OLMO2 = GEMMA2 - {"input_layernorm", "pre_feedforward_layernorm"}
GPT2 = {"attn", "attn.c_proj", "mlp", "ln_1", "ln_2"}
NEOX = {"attention", "attention.dense", "attention.query_key_value", "mlp", "input_layernorm"}
NEOX |= {"post_attention_layernorm"}


@pytest.mark.parametrize(
    ("block", "site", "path", "end"),
    [
        (LLAMA, "resid_pre", "", "input"),
        (LLAMA, "resid_post", "", "output"),
        (LLAMA, "resid_mid", "post_attention_layernorm", "input"),
        (LLAMA, "mlp_in", "mlp", "input"),
        (LLAMA, "mlp_out", "mlp", "output"),
        (LLAMA, "attn_out", "self_attn", "output"),
        (LLAMA, "z", "self_attn.o_proj", "input"),
        (GEMMA2, "resid_mid", "pre_feedforward_layernorm", "input"),
        (GEMMA2, "mlp_out", "post_feedforward_layernorm", "output"),
        (GEMMA2, "attn_out", "post_attention_layernorm", "output"),
        (OLMO2, "resid_mid", "mlp", "input"),
        (OLMO2, "mlp_out", "post_feedforward_layernorm", "output"),
        (OLMO2, "attn_out", "post_attention_layernorm", "output"),
        (GPT2, "resid_mid", "ln_2", "input"),
        (GPT2, "attn_out", "attn", "output"),
        (GPT2, "z", "attn.c_proj", "input"),
        (NEOX, "attn_out", "attention", "output"),
        (NEOX, "z", "attention.dense", "input"),
    ],
)
def test_tap_points(block, site, path, end):
    assert tap_point(site, block.__contains__) == TapPoint(path, end)


@pytest.mark.parametrize("site", SITES)
def test_every_site_that_a_hook_can_name_has_a_place(site):
    assert tap_point(site, LLAMA.__contains__)


def test_a_site_that_a_family_does_not_have_is_refused():
    with pytest.raises(SaeError, match="no module for the hook site 'resid_mid'"):
        tap_point("resid_mid", NEOX.__contains__)
    with pytest.raises(SaeError, match="'logits' is unknown"):
        tap_point("logits", LLAMA.__contains__)
