"""The first and the last autoencoder of every release, by name, in the layout of its repository."""

import fnmatch
import itertools
import shutil

import huggingface_hub
import pytest

from fpo_convert.releases import all_releases
from fpo_convert.sae import convert_sae
from fpo_core.errors import SaeError
from tests.convert import layouts

REVISION = "0" * 40
BY_RELEASE = {
    name: list(group) for name, group in itertools.groupby(all_releases(), lambda r: r.release)
}
WITHOUT_READER = ("temporal",)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder of repositories, of which only the files that are asked for are seen."""
    root = tmp_path / "hub"

    def snapshot_download(repo_id, *, revision=None, allow_patterns):
        target = tmp_path / "view" / REVISION
        names = [p.relative_to(root / repo_id).as_posix() for p in (root / repo_id).rglob("*.*")]
        for name in names:
            if (
                any(fnmatch.fnmatch(name, p) for p in allow_patterns)
                and (root / repo_id / name).is_file()
            ):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).hardlink_to(root / repo_id / name)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return root


@pytest.mark.parametrize("name", BY_RELEASE)
def test_a_release(name, hub, tmp_path):
    rows = BY_RELEASE[name]
    for number, release in enumerate(dict.fromkeys([rows[0].name, rows[-1].name])):
        entry = next(row for row in rows if row.name == release)
        layouts.write(hub, entry)
        if entry.loader in WITHOUT_READER:
            with pytest.raises(SaeError, match=f"{name}/.* is in the format {entry.loader}"):
                convert_sae(release, tmp_path / "o")
            continue
        report = convert_sae(release, tmp_path / f"{number}")
        assert report.unexplained_flips == 0
        assert report.d_sae == layouts.D_SAE
        if report.hook is not None:
            assert report.hook.startswith(f"blocks.{entry.layer}.")
        shutil.rmtree(tmp_path / "view")
