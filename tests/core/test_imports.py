"""The core loads no framework and no reader; the packages say so by not doing it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "mlx", "mlx_lm", "transformers", "peft", "datasets", "safetensors.torch"}
PROBE = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted({m for m in json.loads(sys.argv[2]) if m in sys.modules})))
"""


def modules(package):
    folder = ROOT / package
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def loaded(names):
    """Which heavy packages a fresh process has after importing these modules."""
    command = [sys.executable, "-c", PROBE, json.dumps(names), json.dumps(sorted(HEAVY))]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return json.loads(out)


def test_the_whole_core_imports_without_a_framework_or_a_reader():
    names = list(modules("fpo_core"))
    assert len(names) > 25
    assert loaded(names) == []


def test_the_probe_can_fail():
    assert loaded(["fpo_core", "safetensors.torch"]) == ["safetensors.torch", "torch"]


@pytest.mark.parametrize("package", ["fpo_mlx", "fpo_torch"])
def test_a_backend_package_by_itself_is_free(package):
    assert loaded([package]) == []
