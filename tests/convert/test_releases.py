"""The shipped table of published autoencoders: names, addresses, overrides, suggestions."""

import gzip
import json

import pytest

from fpo_convert import releases
from fpo_convert.releases import all_releases, at_address, by_name, suggestions
from fpo_core.sae.hook import SITES

ALL = all_releases()


def test_every_row_of_the_table_is_usable():
    assert (len(ALL), len({r.release for r in ALL})) == (13857, 170)
    assert len({r.name for r in ALL}) == len(ALL)
    for r in ALL:
        assert r.site in SITES
        assert 0 <= r.layer < 64
        assert r.repo.count("/") == 1
        assert r.path
        assert not r.path.startswith("/")
        assert ".." not in r.path
        assert r.width is None or 512 < r.width <= 1 << 20
        assert r.norm_factor is None or r.norm_factor > 0


def test_the_table_is_small_and_dated():
    content = json.loads(gzip.decompress(releases.TABLE.read_bytes()))
    assert content["version"] == "6.54.12"
    assert content["date"] >= "2026-11-29"
    assert releases.TABLE.stat().st_size < 300_000


@pytest.mark.parametrize(
    ("name", "address", "site", "layer", "width", "l0"),
    [
        (
            "gemma-scope-2b-pt-res-canonical/layer_20/width_65k/canonical",
            "google/gemma-scope-2b-pt-res:layer_20/width_65k/average_l0_114",
            *("resid_post", 20, 65536, 114),
        ),
        (
            "gemma-scope-2-1b-it-att-all/layer_3_width_262k_l0_big",
            "google/gemma-scope-2-1b-it:attn_out_all/layer_3_width_262k_l0_big",
            *("z", 3, 262144, 80),
        ),
        (
            "llama_scope_lxm_32x/l16m_32x",
            "fnlp/Llama3_1-8B-Base-LXM-32x:Llama3_1-8B-Base-L16M-32x",
            *("mlp_out", 16, 131072, 50),
        ),
        (
            "qwen-scope-3.5-27b-w80k-l100/layer63",
            "Qwen/SAE-Res-Qwen3.5-27B-W80K-L0_100:layer63.sae.pt",
            *("resid_post", 63, 81920, 100),
        ),
        (
            "pythia-70m-deduped-res-sm/blocks.0.hook_resid_pre",
            "ctigges/pythia-70m-deduped__res-sm_processed:e-res-sm",
            *("resid_pre", 0, None, None),
        ),
        (
            "mntss-gemma-2-2b-2.5m-clt-as-per-layer/layer_0",
            "mntss/clt-gemma-2-2b-2.5M:W_enc_0.safetensors",
            *("resid_mid", 0, None, None),
        ),
    ],
)
def test_names_and_what_they_say(name, address, site, layer, width, l0):
    found = by_name(name)
    assert found is not None
    assert found.address == address
    assert (found.site, found.layer, found.width, found.l0) == (site, layer, width, l0)


def test_what_the_table_adds_belongs_to_the_place():
    by_address = at_address("JoshEngels/Mistral-7B-Residual-Stream-SAEs", "mistral_7b_layer_8")
    assert by_address is not None
    assert by_address.overrides == {"normalize_activations": "constant_norm_rescale"}
    jumprelu = at_address("fnlp/Llama-Scope-R1-Distill", "800M-Slimpajama-0-OpenR1-Math-220k/L0R/")
    assert jumprelu is not None
    assert jumprelu.norm_factor == 53.52995401997436
    assert at_address("JoshEngels/Mistral-7B-Residual-Stream-SAEs", "mistral_7b_layer_9") is None
    assert by_name("gpt2-small-res-jb/blocks.8.hook_resid_post") is None
    assert by_name("no-release/x") is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (
            "gemma-scope-2b-pt-res:layer_20/width_16k/average_l0_71",
            "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
        ),
        (
            "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
            "google/gemma-scope-2b-pt-res:layer_20/width_16k/average_l0_71",
        ),
        (
            "gemma-scope-2b-pt-res/layer_20/width_16k/canonical",
            "gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical",
        ),
        (
            "gemma-scope-2b-pt-res-canonical/layer_20/width_16k/average_l0_71",
            "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
        ),
        ("llama_scope_lxr_8x", "llama_scope_lxr_8x/l0r_8x"),
        ("gpt2-small-res-jbb/blocks.8.hook_resid_pre", "gpt2-small-res-jb/blocks.8.hook_resid_pre"),
        ("gpt2-small-res-jb/blocks.8.hook_resid_pr", "gpt2-small-res-jb/blocks.8.hook_resid_pre"),
    ],
)
def test_what_may_be_meant(name, meant):
    assert suggestions(name)[0] == meant
    assert len(suggestions(name)) <= 3


def test_nothing_is_suggested_for_what_is_like_no_name():
    assert suggestions("someone/autoencoders") == []
