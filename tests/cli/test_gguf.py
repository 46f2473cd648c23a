"""`fpo convert gguf`, with a stand-in for llama.cpp's converter."""

from pathlib import Path

import pytest

from fpo.world import assets

from .conftest import Fpo
from .test_errors import refused

CONVERTER = """
import pathlib, sys
source, _, out, _, kind = sys.argv[1:]
print("converting")
pathlib.Path(out).write_text(f"{pathlib.Path(source).name} {kind}")
"""


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", "")


def test_the_converter_is_called_where_it_is(fpo: Fpo, tmp_path: Path) -> None:
    (tmp_path / "convert_hf_to_gguf.py").write_text(CONVERTER)
    options = ["--out", tmp_path / "a.gguf", "--outtype", "q8_0", "--llama-cpp", tmp_path, "--json"]
    ran = fpo("convert", "gguf", assets().model, *options)
    assert ran.code == 0, ran.err
    assert ran.json["converted"]
    assert (tmp_path / "a.gguf").read_text() == f"{Path(assets().model).name} q8_0"


def test_without_it_the_command_is_printed(fpo: Fpo, tmp_path: Path) -> None:
    ran = fpo("convert", "gguf", assets().model, "--out", tmp_path / "a.gguf")
    out = f"--outfile {tmp_path / 'a.gguf'} --outtype f16"
    assert ran.out == f"python llama.cpp/convert_hf_to_gguf.py {assets().model} {out}\n"


def test_adapters_and_failures_are_refused(fpo: Fpo, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").touch()
    refused(fpo("convert", "gguf", tmp_path, "--out", "x"), "is an adapter: merge it first")
    (tmp_path / "convert_hf_to_gguf.py").write_text("raise SystemExit(3)")
    ran = fpo("convert", "gguf", assets().model, "--out", "x", "--llama-cpp", tmp_path)
    assert ran.code == 2
    assert "ended with 3" in ran.err
