"""Formats: one module each, listed once; the document names the same."""

import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np

from fpo_convert import formats
from fpo_convert.formats.registry import FORMATS
from fpo_convert.row_readers import ArrayTensor
from fpo_convert.sae import convert_sae, sae_info
from fpo_convert.source_formula import Format, Source

DOCUMENT = Path(__file__).parents[2] / "docs" / "sae_format.md"


def test_every_module_with_a_format_is_listed():
    names = [module.name for module in pkgutil.iter_modules(formats.__path__)]
    modules = [importlib.import_module(f"{formats.__name__}.{name}") for name in names]
    declared = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    assert {known.name: known for known in declared} == FORMATS


def test_the_document_lists_the_formats():
    table = DOCUMENT.read_text(encoding="utf-8").partition("## Where it comes from")[2]
    table = table.partition("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == ["--format", *FORMATS]


def test_a_new_format_is_one_entry(tmp_path, monkeypatch):
    def read(path, options):
        weights = {
            "W_enc": np.eye(2),
            "b_enc": np.zeros(2),
            "W_dec": np.eye(2),
            "b_dec": np.ones(2),
        }
        tensors = {name: ArrayTensor(array) for name, array in weights.items()}
        return Source(files=(path,), architecture="relu", tensors=tensors, d_in=2, d_sae=2)

    monkeypatch.setitem(FORMATS, "new", Format("new", lambda path: path.suffix == ".new", read))
    (tmp_path / "a.new").write_bytes(b"weights")
    report = convert_sae(
        tmp_path / "a.new", tmp_path / "out", model_name="m", hook="model.layers.1"
    )
    info = sae_info(tmp_path / "out", verify=True)
    assert report.format == info["source"]["format"] == "new"
    assert (info["model_name"], info["hook"]) == ("m", "blocks.1.hook_resid_post")
