"""Canonical to SAELens and back: the same payload, byte for byte."""

import json
from pathlib import Path

import numpy as np
import pytest

from fpo_convert.export import export_sae_lens
from fpo_convert.sae import convert_sae, sae_info
from fpo_convert.verify import Comparison, compare_features, refuse_if_wrong
from fpo_core.errors import ConfigError, SaeError
from fpo_core.sae.sae import load_sae
from tests.convert.sae_files import cfg_v6, save_sae_lens, weights

GOLDEN = Path(__file__).parents[1] / "golden" / "sae"
WITH_DECODER = [
    path.parent.name
    for path in sorted(GOLDEN.glob("*/golden.npz"))
    if "transcoder" not in path.parent.name
]


@pytest.mark.parametrize("case", WITH_DECODER)
def test_round_trip_is_bit_exact(case, tmp_path):
    first = convert_sae(GOLDEN / case, tmp_path / "a")
    export_sae_lens(tmp_path / "a", tmp_path / "exported")
    second = convert_sae(tmp_path / "exported", tmp_path / "b")
    assert second.payload_sha256 == first.payload_sha256
    one, two = load_sae(tmp_path / "a"), load_sae(tmp_path / "b")
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array.view(np.uint32), two.arrays()[name].view(np.uint32))
    same = ("architecture", "input_transform", "k", "hook", "model_name", "untrained_tokens")
    assert all(getattr(one, name) == getattr(two, name) for name in same)


def test_centring_is_not_folded_twice(tmp_path):
    folder = save_sae_lens(tmp_path / "in", weights(), cfg_v6())
    convert_sae(folder, tmp_path / "a", centre=True)
    export_sae_lens(tmp_path / "a", tmp_path / "exported")
    convert_sae(tmp_path / "exported", tmp_path / "b")
    one, two = load_sae(tmp_path / "a"), load_sae(tmp_path / "b")
    assert one.payload_sha256 == two.payload_sha256
    assert two.centred
    assert two.folded == ()


def test_encoder_only_is_refused(tmp_path):
    folder = save_sae_lens(tmp_path / "in", weights(), cfg_v6())
    report = convert_sae(folder, tmp_path / "a", encoder_only=True)
    assert not report.decoder
    assert not sae_info(tmp_path / "a", verify=True)["decoder"]
    with pytest.raises(SaeError, match="encoder_only"):
        export_sae_lens(tmp_path / "a", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_an_occupied_folder_is_refused(tmp_path):
    folder = save_sae_lens(tmp_path / "in", weights(), cfg_v6())
    convert_sae(folder, tmp_path / "a")
    before = sorted(folder.iterdir())
    with pytest.raises(ConfigError, match="not an empty folder"):
        export_sae_lens(tmp_path / "a", folder)
    assert sorted(folder.iterdir()) == before


def test_the_report_and_info_are_json(tmp_path):
    folder = save_sae_lens(tmp_path / "in", weights(), cfg_v6())
    report = convert_sae(folder, tmp_path / "a", untrained_tokens=("bos", "id:7"))
    assert json.loads(json.dumps(report.to_dict()))["untrained_tokens"] == ["bos", "id:7"]
    info = json.loads(json.dumps(sae_info(tmp_path / "a")))
    assert info["payload_sha256"] == report.payload_sha256


def test_verification_counts_what_rounding_cannot_explain():
    expected = np.array([[1.0, 0.0, 2.0, 0.0]])
    edge = np.array([[0.4, 1e-6, 0.5, 0.3]])
    actual = np.array([[1.0, 1e-6, 2.0 + 4e-6, 0.7]])
    result = compare_features(expected, edge, actual)
    assert (result.flips, result.unexplained_flips, result.l0) == (2, 1, 2.0)
    assert result.relative_difference == pytest.approx(2e-6)


@pytest.mark.parametrize(("gap", "flips"), [(0.01, 0), (0.0, 1), (float("nan"), 0)])
def test_a_wrong_conversion_is_refused(gap, flips):
    wrong = Comparison(gap, flips, flips, 1.0)
    with pytest.raises(SaeError, match="differs from its source"):
        refuse_if_wrong(wrong, "float32")
    refuse_if_wrong(wrong, "bfloat16")
    refuse_if_wrong(Comparison(1e-6, 2, 0, 1.0), "float32")
