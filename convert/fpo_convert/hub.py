"""Autoencoders on the Hugging Face hub: `user/repo[:path][@revision]`."""

import re
from dataclasses import dataclass
from pathlib import Path

from fpo_convert.formats.registry import FORMATS
from fpo_core.errors import SaeError
from fpo_core.io.hub import advice

_FILES = tuple(dict.fromkeys(name for format in FORMATS.values() for name in format.files))
_SIBLINGS = tuple(name for name in _FILES if name.endswith((".json", ".yaml")))
_WEIGHTS = (".pt", ".pth", ".npz", ".safetensors")
_ADDRESS = re.compile(r"([\w.-]+/[\w.-]+)(?::([^@]*))?(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Address:
    """A checkpoint on the hub; `path` is a folder or file in the repository, "" its root."""

    repo: str
    path: str = ""
    revision: str | None = None


def parse_address(source: str) -> Address:
    """Read `user/repo[:path][@revision]`. Raises SaeError, also for a path that leaves the repo."""
    match = _ADDRESS.fullmatch(source)
    if not match or "\\" in source:
        raise SaeError(
            f"{source!r} is neither a file that exists nor a hub name, expected a folder, a file, "
            "user/repo[:path][@revision] or release/sae_id: correct it"
        )
    repo, path, revision = match[1], (match[2] or ""), match[3]
    parts = path.rstrip("/").split("/") if path else []
    odd = any(part in ("", ".", "..") for part in (*parts, *repo.split("/")))
    if odd or path.startswith("/") or re.search(r"[*?\[\]\x00-\x1f]", path) or ".." in repo:
        raise SaeError(
            f"hub path {source!r} has parts such as .., a leading slash or wildcards, expected a "
            "plain path inside the repository: correct it"
        )
    return Address(repo, "/".join(parts), revision)


def download(address: Address) -> tuple[Path, str]:
    """Download the files of one checkpoint and no others -> (local path, exact revision).

    Uses the hub library's cache and offline mode. Raises SaeError where nothing is there.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                address.repo, revision=address.revision, allow_patterns=_patterns(address.path)
            )
        )
    except Exception as error:  # the hub library raises many kinds, all about the network or names
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SaeError(
            advice(address.repo, error)
            or f"{address.repo} could not be fetched from the hub ({reason[0]}): check the name, "
            "the network and your access"
        ) from None
    local = folder / address.path
    if not local.exists():
        raise SaeError(
            f"{address.repo} has no checkpoint at {address.path or 'its root'!r}, expected one of "
            f"{', '.join(_FILES[:2])} … there: give its folder after a colon, user/repo:path"
        )
    return local, folder.name


def _patterns(path: str) -> list[str]:
    """The files of a folder and, where the name is one of a file, it and its configuration too.

    Both, since folders are named with dots too, and even end in .pt.
    """
    folder = [f"{path}/{name}" if path else name for name in _FILES if "{" not in name]
    if Path(path).suffix not in _WEIGHTS:
        return folder
    parent, stem = path.rpartition("/")[0], Path(path).stem
    siblings = [name.format(stem=stem) for name in _SIBLINGS]
    return [path, *(f"{parent}/{name}" if parent else name for name in siblings), *folder]
