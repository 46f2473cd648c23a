"""Reading `.npz` files member by member, without pickles."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from fpo_convert.row_readers import Tensor, WholeTensor
from fpo_core.errors import SaeError


def load_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of an `.npz` file, each loaded when its rows are requested. Raises SaeError."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name[:-4]: _member(path, archive, name) for name in names}
    except (OSError, zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise SaeError(
            f"{path} is not a readable .npz archive ({error}): download it again"
        ) from None


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> Tensor:
    # The header alone: members may be compressed, and shapes are needed before any array is.
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"{name} has .npy version {version}")
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise SaeError(f"{path} holds pickled objects in {name}: use a file with plain numbers")

    def load() -> np.ndarray:
        try:
            with np.load(path, allow_pickle=False) as content:
                return content[name[:-4]]
        except (OSError, zipfile.BadZipFile, ValueError, EOFError, zlib.error) as error:
            raise SaeError(f"{path}: {name} is damaged ({error}): download it again") from None

    return WholeTensor(tuple(shape), load)
