"""A step without a kernel computes what one with it does: else their times say nothing."""

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench_kernels import WITHOUT
from benchmarks.bench_step import build_policy, options_of, parser
from benchmarks.shapes import batch_of, build_model
from tests.backends.support import difference, gradients, reference_of, shaken


@pytest.fixture(scope="module")
def arguments() -> argparse.Namespace:
    return parser().parse_args(["--model-shape", "tiny", "--pairs", "tiny", "--d-sae", "96"])


def gradient(arguments: argparse.Namespace, folder: Path) -> dict[str, np.ndarray]:
    policy: Any = build_policy(options_of(arguments, folder))
    assert policy.info.fallback is None
    batch = batch_of("tiny", 512)
    reference = reference_of(policy, batch)
    policy.load_trained(shaken(policy.trained()))
    return gradients(policy, [(batch, reference)])


@pytest.fixture(scope="module")
def with_all(arguments: argparse.Namespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = build_model("tiny", tmp_path_factory.mktemp("model"))
    return cache(lambda: (folder, gradient(arguments, folder)))


@pytest.mark.parametrize("name", [name for name in WITHOUT if name != "flex_row"])
def test_the_gradient_is_the_same_without(
    name: str, arguments: argparse.Namespace, with_all: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected = with_all()
    owner, attribute, replacement = WITHOUT[name]
    calls: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return replacement(*args, **kwargs)

    if name == "features":
        counted.apply = counted  # pyright: ignore[reportFunctionMemberAccess]
        replacement = replacement.apply
    monkeypatch.setattr(owner, attribute, counted)
    assert difference(gradient(arguments, folder), expected) < 1e-5
    assert calls
