"""Every link against its paper's formula: values, gradients, and the published numbers."""

import math

import numpy as np
import pytest

from fpo_core.arrays import numpy_ops
from fpo_core.config import LINKS, OBJECTIVES, ObjectiveConfig
from fpo_core.errors import ConfigError
from fpo_core.loss.links import (
    LINK_LOSSES,
    TEMPERATURES,
    aps_quadratic_tau,
    aps_root,
    aps_tau,
    link_loss,
)
from fpo_core.loss.metrics import preference_metrics
from fpo_core.loss.scores import Scores
from fpo_core.loss.terms import Terms
from tests.core.plain_links import aps_of_tau, least, plain_link, quadratic_of_tau
from tests.helpers import framework, gradient

LPD = np.array([-9.0, -2.5, -0.6, -0.02, 0.03, 0.4, 1.3, 6.0, 0.2, -0.3])
REST = np.array([1.0, -0.3, 0.1, 0.01, 0.0, -0.05, 0.2, -2.0, 0.5, -0.6])
"""Margin and δ together; the last two turn the sign of the policy's margin."""
OFF_DEFAULT = {
    "lrml": {"discopop_tau": 0.3},
    "aps": {"aps_rho": 0.2, "aps_tau_min": 0.3, "aps_tau_max": 1.5},
    "aps-quadratic": {"aps_rho": 0.4, "aps_tau_min": 0.2},
}
CASES = [(name, {}) for name in LINKS] + list(OFF_DEFAULT.items())
EXACT = ("numpy64", "torch64", "mlx64")


pytestmark = pytest.mark.usefixtures("mlx_on_the_cpu")


def config_of(link, settings):
    return ObjectiveConfig(objective="dpo", link=link, **settings)


def terms_of(fw, lpd, rest=REST):
    rest = fw.array(rest)
    return Terms(lpd, rest * 0.75, rest * 0.25)


def plain(link, settings, lpd):
    c = LINKS[link].coefficients | settings
    pairs = zip(lpd, lpd - REST, strict=True)
    return np.array([plain_link(link, u, policy, c) for policy, u in pairs])


@pytest.mark.parametrize(("link", "settings"), CASES)
@pytest.mark.parametrize("name", [*EXACT, "torch32", "mlx32"])
def test_values(name, link, settings):
    fw = framework(name)
    found = link_loss(fw.xp, terms_of(fw, fw.array(LPD)), config_of(link, settings))
    tolerance = {"numpy64": 1e-10, "torch64": 1e-10, "mlx64": 1e-6}.get(name, 2e-6)
    np.testing.assert_allclose(
        fw.numpy(found), plain(link, settings, LPD), rtol=tolerance, atol=1e-6
    )


@pytest.mark.parametrize(("link", "settings"), CASES)
@pytest.mark.parametrize("name", ["torch64", "mlx64", "torch32", "mlx32"])
def test_gradients(name, link, settings):
    fw, config, step = framework(name), config_of(link, settings), 1e-5
    found = gradient(fw, lambda lpd: link_loss(fw.xp, terms_of(fw, lpd), config).sum(), LPD)
    up, down = (plain(link, settings, LPD + sign * step) for sign in (1, -1))
    expected = (up - down) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if name in EXACT else 1e-5, atol=1e-6)


def test_every_link_has_a_row_and_a_function():
    assert set(LINKS) == set(LINK_LOSSES)
    assert {"aps", "aps-quadratic"} == set(TEMPERATURES)
    assert {row.link for row in OBJECTIVES.values()} <= {*LINKS, None}


@pytest.mark.parametrize(
    ("ratio", "printed"), [(-2.3714, 0.785929), (1.44012, 0.87829)], ids=["least", "greatest"]
)
def test_the_two_extrema_that_discopop_prints(ratio, printed):
    """Figure of the paper: ρ where f has its minimum and its maximum, at β = τ = 0.05."""
    config = ObjectiveConfig(objective="discopop")
    assert config.coefficients == {"beta": 0.05, "discopop_tau": 0.05}
    at = np.array([ratio - 0.05, ratio, ratio + 0.05]) * config.coefficient("beta")
    found = link_loss(numpy_ops, Terms(at, at * 0, at * 0), config)
    assert found[1] == pytest.approx(printed, abs=1e-5)
    assert (found[1] < found[[0, 2]]).all() if ratio < 0 else (found[1] > found[[0, 2]]).all()


def test_padll_by_hand():
    """At u = ±1: 0.9 log(1 + e^−1), and half of 0.9 log(1 + e)."""
    u = np.array([1.0, -1.0])
    found = link_loss(numpy_ops, Terms(u, u * 0, u * 0), config_of("padll", {}))
    np.testing.assert_allclose(found, [0.9 * math.log1p(1 / math.e), 0.45 * math.log1p(math.e)])


@pytest.mark.parametrize(
    ("rho", "a", "slope"),
    [(0.1, 0.943443, 0.2802), (0.2, 1.418944, 0.1948), (0.5, 2.983241, 0.0482)],
)
def test_the_table_of_a(rho, a, slope):
    """H(σ(a)) = log 2 − ρ; between the bounds the loss has the constant slopes −σ(∓a)."""
    assert aps_root(rho) == pytest.approx(a, abs=5e-7)
    share = 1 / (1 + math.exp(a))
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert entropy == pytest.approx(math.log(2) - rho, abs=1e-6)
    fw, config = framework("torch64"), config_of("aps", {"aps_rho": rho})
    u = np.array([1.0, 2.0, -1.0, -2.0]) * a
    found = gradient(
        fw, lambda lpd: link_loss(fw.xp, Terms(lpd, lpd * 0, lpd * 0), config).sum(), u
    )
    np.testing.assert_allclose(found, [-slope, -slope, slope - 1, slope - 1], atol=5e-5)


@pytest.mark.parametrize("settings", [{}, OFF_DEFAULT["aps"], {"aps_rho": 0.69}, {"aps_rho": 0.7}])
def test_the_closed_form_is_the_minimum_of_a_grid(settings):
    config = config_of("aps", settings)
    low, high = config.coefficient("aps_tau_min"), config.coefficient("aps_tau_max")
    grid = np.linspace(low, high, 200_001)
    for u in (-8.0, -1.0, -0.2, 0.0, 0.05, 0.7, 3.0, 30.0):
        values = grid * np.logaddexp(0, -u / grid)
        values += (config.coefficient("aps_rho") - math.log(2)) * grid
        at = np.array([u])
        tau = aps_tau(numpy_ops, Terms(at, at * 0, at * 0), config)[0]
        assert tau == pytest.approx(grid[values.argmin()], abs=2 * (grid[1] - grid[0]))
        c = {"aps_rho": config.coefficient("aps_rho")}
        assert aps_of_tau(u, c, tau) <= values.min() + 1e-12


@pytest.mark.parametrize("settings", [{}, OFF_DEFAULT["aps-quadratic"]])
def test_the_quadratic_variants_temperature_is_the_minimum(settings):
    config = config_of("aps-quadratic", settings)
    c = config.coefficients
    for u in (-8.0, -0.7, -0.05, 0.0, 0.3, 2.0, 9.0):
        at = np.array([u])
        tau = aps_quadratic_tau(numpy_ops, Terms(at, at * 0, at * 0), config)[0]
        highest = math.log(2) / (2 * c["aps_rho"])
        best, _ = least(lambda tau, u=u: quadratic_of_tau(u, c, tau), c["aps_tau_min"], highest)
        assert tau == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("name", ["torch64", "mlx32"])
def test_one_temperature_for_all_pairs_is_the_logistic_loss(name):
    """τ_min = τ_max = 1: the loss is off by ρ − log 2, the gradient is the same bit for bit."""
    fw = framework(name)
    fixed = config_of("aps", {"aps_rho": 0.3, "aps_tau_min": 1.0, "aps_tau_max": 1.0})
    values, slopes = [], []
    for config in (fixed, config_of("logistic", {})):
        values.append(fw.numpy(link_loss(fw.xp, terms_of(fw, fw.array(LPD)), config)))
        slopes.append(
            gradient(fw, lambda x, c=config: link_loss(fw.xp, terms_of(fw, x), c).sum(), LPD)
        )
    np.testing.assert_allclose(values[0], values[1] + 0.3 - math.log(2), atol=1e-6)
    np.testing.assert_array_equal(*slopes)


def test_the_log_tells_temperatures():
    """|u| = 0.01, 1, 2 and 50 times a: one pair at the least 0.1, one at the greatest 4."""
    a = aps_root(0.1)
    logps = np.array([0.01 * a, -1.0 * a, 2.0 * a, 50 * a, 0, 0, 0, 0])
    scores = Scores(logps=logps, lengths=np.ones(8))
    config = ObjectiveConfig(objective="dpo", beta=1.0, link="aps")
    found = preference_metrics(scores, np.zeros(8), config)
    assert found["fpo/tau"] == pytest.approx(1.5)
    assert (found["fpo/tau_at_min"], found["fpo/tau_at_max"]) == (0.25, 0.25)
    quadratic = ObjectiveConfig(objective="dpo", beta=1.0, link="aps-quadratic")
    assert "fpo/tau_at_max" not in preference_metrics(scores, np.zeros(8), quadratic)
    assert "fpo/tau" not in preference_metrics(
        scores, np.zeros(8), ObjectiveConfig(objective="dpo")
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"objective": "discopop", "link": "hinge"}, "link is hinge, but the objective discopop"),
        (
            {"objective": "asft", "link": "hinge"},
            "link is hinge, but the objective asft has a loss",
        ),
        ({"objective": "dpo", "aps_rho": 0.1}, "aps_rho is set, but .* link that has it"),
        ({"objective": "dpo", "link": "aps", "discopop_tau": 0.1}, "discopop_tau is set"),
        ({"objective": "dpo", "link": "aps-quadratic", "aps_tau_max": 2.0}, "aps_tau_max is set"),
        (
            {"objective": "dpo", "link": "aps", "aps_tau_min": 5.0},
            "aps_tau_min is 5 and aps_tau_max 4",
        ),
        ({"objective": "dpo", "link": "cell", "label_smoothing": 0.1}, "the link cell takes none"),
        ({"objective": "orpo", "label_smoothing": 0.1}, "orpo has a loss of its own"),
        ({"objective": "dpo", "link": "probit"}, "link is 'probit', expected one of"),
    ],
)
def test_what_a_link_does_not_use_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        ObjectiveConfig(**settings)


def test_coefficients_of_a_link_go_with_it():
    defaults = {"link": "aps", "aps_rho": 0.3, "beta": 5.0}
    assert ObjectiveConfig.fitting(defaults, {}) == defaults
    assert ObjectiveConfig.fitting(defaults, {"link": "hinge"}) == {"beta": 5.0}
    assert ObjectiveConfig.fitting(defaults, {"objective": "dpo"}) == {}
