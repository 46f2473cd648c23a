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
    monkeypatch.setattr(releases, "_table", dict)
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
    folder = hub.repository("google/gemma-scope-9b-pt-mlp") / "layer_5/width_16k/average_l0_7"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **weights(threshold=True))
    source = "gemma-scope-9b-pt-mlp/layer_5/width_16k/average_l0_7"
    report = convert_sae(source, tmp_path / "o")
    assert (report.hook, report.model_name) == ("blocks.5.hook_mlp_out", "google/gemma-2-9b")
    assert load_sae(tmp_path / "o").source["release"] == source


def test_releases_of_the_gpt2_era_are_centred_by_name(hub, tmp_path):
    folder = hub.repository("jbloom/GPT2-Small-SAEs-Reformatted") / "blocks.8.hook_resid_pre"
    save_sae_lens(folder, weights(), cfg_v6())
    convert_sae("gpt2-small-res-jb/blocks.8.hook_resid_pre", tmp_path / "o")
    assert load_sae(tmp_path / "o").centred


@pytest.mark.parametrize(
    ("source", "repo", "path"),
    [
        (
            "gemma-scope-2-1b-it-res-all/layer_3_width_16k_l0_big",
            "google/gemma-scope-2-1b-it",
            "resid_post_all/layer_3_width_16k_l0_big",
        ),
        ("llama_scope_lxr_8x/l16r_8x", "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L16R-8x"),
        (
            "pythia-70m-deduped-mlp-sm/blocks.3.hook_mlp_out",
            "ctigges/pythia-70m-deduped__mlp-sm_processed",
            "3-mlp-sm",
        ),
    ],
)
def test_names_in_our_table(source, repo, path, monkeypatch):
    monkeypatch.setattr(releases, "_table", dict)
    release = releases.find_release(source)
    assert release is not None
    assert (release.repo, release.path) == (repo, path)


TABLE = {
    "tiny-res": {
        "repo_id": "someone/tiny",
        "conversion_func": None,
        "config_overrides": {"normalize_activations": "expected_average_only_in"},
        "saes": [
            {"id": "a", "path": "x/a", "norm_scaling_factor": 0.5, "neuronpedia": "tiny/2-res"}
        ],
    },
    "odd": {"repo_id": "u/o", "conversion_func": "martian", "saes": [{"id": "a", "path": "a"}]},
}


def test_a_release_of_sae_lens_own_table(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(releases, "_table", lambda: TABLE)
    save_sae_lens(hub.repository("someone/tiny") / "x/a", weights(), cfg_v6())
    convert_sae("tiny-res/a", tmp_path / "o")
    sae = load_sae(tmp_path / "o")
    assert sae.folded == ("norm_factor=0.5", "b_dec_subtraction")
    assert sae.neuronpedia_id == "tiny/2-res"


@pytest.mark.parametrize(("source", "match"), [("tiny-res/b", "such as a"), ("odd/a", "martian")])
def test_releases_that_cannot_be_had(source, match, tmp_path, monkeypatch):
    monkeypatch.setattr(releases, "_table", lambda: TABLE)
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
