"""The safetensors codec: dtypes, rows, and what of a hostile header is refused."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fpo_core.errors import SaeError
from fpo_core.io.digests import file_sha256
from fpo_core.io.reader import DTYPES, open_safetensors
from fpo_core.io.writer import NO_HASH, Tensor, finite, float_tensor, write_tensors


def test_every_dtype_goes_out_and_comes_back(tmp_path):
    arrays = {code: np.arange(6).astype(dtype).reshape(2, 3) for code, dtype in DTYPES.items()}
    tensors = [Tensor(n, n, a.shape, lambda a=a: [a[:1], a[1:]]) for n, a in arrays.items()]
    write_tensors(tmp_path / "x", tensors, {"format": "pt"})
    file = open_safetensors(tmp_path / "x")
    for name, array in arrays.items():
        for found in (file.stored(name), np.asarray(file.array(name))):
            assert found.dtype == array.dtype
            assert found.tobytes() == array.tobytes()


def test_the_library_reads_what_is_written(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    pieces = lambda: iter([array[:2], array[2:]])  # noqa: E731
    write_tensors(tmp_path / "x", [float_tensor("a", "F32", (3, 4), pieces)], {"k": "v"})
    np.testing.assert_array_equal(load_file(tmp_path / "x")["a"], array)


def test_a_seal_puts_the_hash_of_the_payload_into_the_header(tmp_path):
    def seal(header, payload_sha256):
        return header | {"__metadata__": {"hash": payload_sha256}}

    tensor = Tensor("a", "F32", (2,), lambda: [np.ones(2, np.float32)])
    found = write_tensors(tmp_path / "x", [tensor], {}, seal)
    file = open_safetensors(tmp_path / "x")
    assert found == file.header["__metadata__"]["hash"] != NO_HASH
    assert found == file_sha256(tmp_path / "x", file.payload_begin)
    assert file.payload_begin % 64 == 0


def test_rows_are_floats_and_scalars_stay_scalars(tmp_path):
    half = np.arange(8, dtype=np.float16).reshape(4, 2)
    save_file({"a": half, "s": np.array(2.5), "i": np.arange(3)}, tmp_path / "x")
    file = open_safetensors(tmp_path / "x")
    np.testing.assert_array_equal(file.rows("a", 1, 3), half[1:3].astype(np.float32))
    assert file.rows("a").dtype == np.float32
    assert (file.rows("s").shape, float(file.rows("s"))) == ((), 2.5)
    assert file.rows("a", 3, 99).shape == (1, 2)
    with pytest.raises(SaeError, match="'i' as I64, expected floating point"):
        file.rows("i")


def test_a_file_cut_short_meanwhile_is_an_error(tmp_path):
    save_file({"a": np.arange(8, dtype=np.float32)}, tmp_path / "x")
    file = open_safetensors(tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-4])
    with pytest.raises(SaeError, match="cut short while it was in use"):
        file.rows("a")


def test_bfloat16_is_rounded_to_nearest_even():
    # 1 + 2^-8 lies half way between two bfloat16 numbers, 1 and 1 + 2^-7; 1 has the even mantissa.
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8)])
    found = finite("a", values, "BF16")
    np.testing.assert_array_equal(found.astype(np.float64), [1, 1 + 2**-6, -1])
    assert found.dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("value", "dtype", "cause"),
    [
        (np.inf, "F32", "is not finite, before"),
        (np.nan, "BF16", "is not finite, before"),
        (1e5, "F16", "cannot be held in"),
        (3.4e38, "BF16", "cannot be held in"),
        (1e39, "F32", "cannot be held in"),
    ],
)
def test_numbers_that_a_dtype_cannot_hold_are_refused(value, dtype, cause):
    with pytest.raises(SaeError, match=f"a number in W {cause} {dtype}"):
        finite("W", np.array([0.0, value]), dtype)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
TEXT = json.dumps(ENTRY)
HOSTILE = {
    "a tensor twice": (f'{{"a":{TEXT},"a":{TEXT}}}', "twice"),
    "escaped twice": (f'{{"a":{TEXT},"\\u0061":{TEXT}}}', "twice"),
    "metadata twice": (f'{{"__metadata__":{{"k":"1","k":"2"}},"a":{TEXT}}}', "twice"),
    "another field": (json.dumps({"a": ENTRY | {"x": 1}}), "fields other than"),
    "deep": (f'{{"a":{{"x":{"[" * 5000}{"]" * 5000},{TEXT[1:]}}}', "header"),
    "hole": (json.dumps({"a": ENTRY | {"shape": [1], "data_offsets": [4, 8]}}), "offset"),
    "trailing": (json.dumps({"a": ENTRY | {"shape": [1], "data_offsets": [0, 4]}}), "covered"),
    "too long": (json.dumps({"a": ENTRY | {"shape": [4], "data_offsets": [0, 16]}}), "covered"),
    "size": (json.dumps({"a": ENTRY | {"shape": [3]}}), "shape, data type"),
    "negative": (json.dumps({"a": ENTRY | {"shape": [-2]}}), "usize"),
    "huge": (json.dumps({"a": ENTRY | {"shape": [1 << 62, 1 << 62]}}), "overflow"),
    "dtype": (json.dumps({"a": ENTRY | {"dtype": "F99\n\x1b"}}), "F99"),
    "name": (json.dumps({"b\n\x1b": ENTRY | {"data_offsets": [4, 12]}}), "offset"),
    "metadata": (json.dumps({"__metadata__": {"k": 1}, "a": ENTRY}), "string"),
    "list": ("[" + TEXT + "]", "complete"),
    "not JSON": ("{'a'", "JSON"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused_in_one_line(tmp_path, case):
    text, match = HOSTILE[case]
    header = text.encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(SaeError, match=match) as caught:
        open_safetensors(tmp_path / "x")
    assert str(caught.value).isprintable()


def test_null_metadata_is_none(tmp_path):
    """MLX writes it."""
    header = json.dumps({"__metadata__": None, "a": ENTRY}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert open_safetensors(tmp_path / "x").rows("a").tolist() == [0, 0]
