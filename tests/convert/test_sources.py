"""Hub addresses, SAELens release names, and what is downloaded, on trees laid out as the hub's."""

import fnmatch
import shutil

import huggingface_hub
import numpy as np
import pytest

from fpo_convert import releases
from fpo_convert.hub import Address, parse_address
from fpo_convert.sae import convert_sae
from fpo_core.errors import SaeError
from fpo_core.sae.sae import load_sae
from tests.convert.sae_files import cfg_v6, save_sae_lens, weights

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub whose repositories are folders; it records which files were asked for."""
    root = tmp_path / "hub"
    root.mkdir()

    class Hub:
        fetched: list[str] = []  # noqa: RUF012
        revisions: list[str | None] = []  # noqa: RUF012

        def repository(self, name):
            return root / name

    def snapshot_download(repo_id, *, revision=None, allow_patterns):
        if not (root / repo_id).is_dir():
            raise OSError(f"404: {repo_id} not found")
        Hub.revisions = [revision]
        Hub.fetched = []
        target = tmp_path / "cache" / repo_id / REVISION
        for path in sorted((root / repo_id).rglob("*")):
            name = path.relative_to(root / repo_id).as_posix()
            if path.is_file() and any(fnmatch.fnmatch(name, p) for p in allow_patterns):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target / name)
                Hub.fetched.append(name)
        target.mkdir(parents=True, exist_ok=True)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return Hub()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("user/repo", Address("user/repo")),
        ("user/repo:a/b", Address("user/repo", "a/b")),
        ("user/repo:a/b/@v1.0", Address("user/repo", "a/b", "v1.0")),
        ("user/repo@abc", Address("user/repo", "", "abc")),
        ("u/r:group_24576:v0", Address("u/r", "group_24576:v0")),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address


def test_only_the_checkpoint_is_downloaded(hub, tmp_path):
    repository = hub.repository("someone/saes")
    for layer in (2, 3):
        save_sae_lens(repository / f"layer_{layer}", weights(layer), cfg_v6())
        (repository / f"layer_{layer}" / "trainer_state.pt").write_bytes(b"big")
    report = convert_sae("someone/saes:layer_3@main", tmp_path / "o")
    assert hub.fetched == ["layer_3/cfg.json", "layer_3/sae_weights.safetensors"]
    assert hub.revisions == ["main"]
    source = load_sae(tmp_path / "o").source
    assert source["revision"] == REVISION
    assert source["location"] == "someone/saes/layer_3"
    assert report.source_sha256 == source["sha256"] != "0" * 64


def test_the_root_of_a_repository(hub, tmp_path):
    save_sae_lens(hub.repository("someone/one"), weights(), cfg_v6())
    assert convert_sae("someone/one", tmp_path / "o").format == "sae-lens"


def test_a_file_in_a_repository(hub, tmp_path):
    folder = hub.repository("google/gemma-scope-2b-pt-res") / "layer_5/width_16k/average_l0_7"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **weights(threshold=True))
    source = "google/gemma-scope-2b-pt-res:layer_5/width_16k/average_l0_7/params.npz"
    report = convert_sae(source, tmp_path / "o")
    assert report.hook == "blocks.5.hook_resid_post"


def test_a_release_from_our_table(hub, tmp_path):
    folder = hub.repository("google/gemma-scope-9b-pt-mlp") / "layer_5/width_16k/average_l0_14"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **weights(threshold=True))
    source = "gemma-scope-9b-pt-mlp/layer_5/width_16k/average_l0_14"
    report = convert_sae(source, tmp_path / "o")
    assert (report.hook, report.model_name) == ("blocks.5.hook_mlp_out", "google/gemma-2-9b")
    assert load_sae(tmp_path / "o").source["release"] == source


def test_releases_of_the_gpt2_era_are_centred_by_name(hub, tmp_path):
    folder = hub.repository("jbloom/GPT2-Small-SAEs-Reformatted") / "blocks.8.hook_resid_pre"
    metadata = {"model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre"}
    save_sae_lens(folder, weights(), cfg_v6(metadata=metadata))
    convert_sae("gpt2-small-res-jb/blocks.8.hook_resid_pre", tmp_path / "o")
    assert load_sae(tmp_path / "o").centred


MISTRAL = "JoshEngels/Mistral-7B-Residual-Stream-SAEs"


@pytest.mark.parametrize(
    "source", ["mistral-7b-res-wg/blocks.8.hook_resid_pre", f"{MISTRAL}:mistral_7b_layer_8"]
)
def test_what_the_table_adds_holds_for_every_name_of_a_place(hub, tmp_path, source):
    save_sae_lens(hub.repository(MISTRAL) / "mistral_7b_layer_8", weights(), cfg_v6())
    convert_sae(source, tmp_path / "o")
    assert load_sae(tmp_path / "o").input_transform == "constant_norm_rescale"


def test_a_norm_factor_of_the_table(hub, tmp_path):
    name = "gpt2-small-mlp-tm/blocks.0.hook_mlp_out"
    release = releases.by_name(name)
    folder = hub.repository(release.repo) / release.path
    metadata = {"model_name": "gpt2-small", "hook_name": "blocks.0.hook_mlp_out"}
    normalised = {"normalize_activations": "expected_average_only_in", "metadata": metadata}
    save_sae_lens(folder, weights(), cfg_v6(**normalised))
    convert_sae(name, tmp_path / "o")
    sae = load_sae(tmp_path / "o")
    assert sae.folded == ("centring", "norm_factor=1.049317316132615", "b_dec_subtraction")


def test_a_folder_that_is_named_like_a_file(hub, tmp_path):
    repository = hub.repository("jbloom/GPT2-Small-OAI-v5-32k-resid-post-SAEs")
    save_sae_lens(repository / "v5_32k_layer_3.pt", weights(), cfg_v6())
    convert_sae("gpt2-small-resid-post-v5-32k/blocks.3.hook_resid_post", tmp_path / "o")
    assert hub.fetched == [
        "v5_32k_layer_3.pt/cfg.json",
        "v5_32k_layer_3.pt/sae_weights.safetensors",
    ]


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("temporal-sae-gemma-2-2b/blocks.12.hook_resid_post", "in the format temporal"),
        ("gemma-scope-2b-pt-res", "did you mean gemma-scope-2b-pt-res/"),
        ("gpt2-small-res-jb/blocks.8", "not there.*did you mean"),
        (
            "gemma-scope-2b-pt-res:layer_5/width_16k/average_l0_18",
            "mean gemma-scope-2b-pt-res/layer",
        ),
        ("google/gemma-scope-2b-pt-res/layer_5/width_16k/average_l0_18", "mean google/gemma-scope"),
        ("gpt2-small-res-jbb/blocks.8.hook_resid_pre", "404.*mean gpt2-small-res-jb/"),
    ],
)
def test_names_that_cannot_be_had(hub, source, match, tmp_path):
    with pytest.raises(SaeError, match=match):
        convert_sae(source, tmp_path / "o")


def test_a_repository_that_is_not_there(hub, tmp_path):
    with pytest.raises(SaeError, match=r"could not be fetched.*404"):
        convert_sae("nobody/nothing", tmp_path / "o")
    save_sae_lens(hub.repository("someone/saes") / "a", weights(), cfg_v6())
    with pytest.raises(SaeError, match="no checkpoint at 'b'"):
        convert_sae("someone/saes:b", tmp_path / "o")


def test_the_hubs_own_cache_serves_offline(tmp_path, monkeypatch):
    """huggingface-hub itself, on its cache's layout and without a network."""
    repository = tmp_path / "models--someone--saes"
    save_sae_lens(repository / "snapshots" / REVISION / "layer_3", weights(), cfg_v6())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    convert_sae("someone/saes:layer_3", tmp_path / "o")
    assert load_sae(tmp_path / "o").source["revision"] == REVISION
    with pytest.raises(SaeError, match="someone/others is not on this machine, and the hub"):
        convert_sae("someone/others:layer_3", tmp_path / "p")
    assert not (tmp_path / "p").exists()
