"""Every objective and link against plain float64 formulas, values and gradients."""

import dataclasses

import numpy as np
import pytest

from fpo_core.arrays import numpy_ops
from fpo_core.config import LINKS, OBJECTIVES, ObjectiveConfig
from fpo_core.errors import ConfigError
from fpo_core.loss.metrics import losses_at_reference, pair_losses, preference_metrics
from fpo_core.loss.objectives import objective_losses
from fpo_core.loss.scores import Scores
from tests.core.plain_links import plain_link
from tests.helpers import framework, gradient

pytestmark = pytest.mark.usefixtures("mlx_on_the_cpu")
PAIRS = 5
INPUTS = ("logps", "d", "kl")
CONFIGS = {
    "fpo": {"alpha": 0.7, "beta": 0.4},
    "fpo, no stop-gradient": {"alpha": 0.7, "beta": 0.4, "stop_gradient": False},
    "fpo, smoothed, with RPO": {
        "alpha": 0.5,
        "beta": 0.1,
        "label_smoothing": 0.1,
        "rpo_alpha": 0.3,
    },
    "dpo-norm": {"beta": 1.5},
    "dpo": {"beta": 0.3},
    "dpo, smoothed": {"beta": 0.3, "label_smoothing": 0.2},
    "dpo, with RPO": {"rpo_alpha": 1.0},
    "simpo": {"beta": 2.5, "gamma": 1.2},
    "simpo, smoothed": {"label_smoothing": 0.3},
    "simpo-kl": {"alpha": 0.8, "beta": 1.1, "gamma": 0.2},
    "simpo-kl, no stop-gradient": {"stop_gradient": False},
    "tdpo1": {"beta": 0.2},
    "tdpo2": {"alpha": 0.6, "beta": 0.2},
    "tdpo2, no stop-gradient": {"stop_gradient": False},
    "discopop": {"beta": 0.08, "discopop_tau": 0.4},
    "asft": {"beta": 0.7, "odds_lambda": 0.6},
    "asft, with RPO": {"rpo_alpha": 0.5},
    "orpo": {"odds_lambda": 0.4},
}
HAVE_U = [name for name, row in OBJECTIVES.items() if row.losses is None]
CONFIGS |= {
    f"{name}, {link}": CONFIGS[name] | {"link": link}
    for name in HAVE_U
    if OBJECTIVES[name].link is None
    for link in LINKS
}


def config_of(case):
    return ObjectiveConfig(objective=case.split(",")[0], **CONFIGS[case])


def random_inputs(seed):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, 9, 2 * PAIRS).astype(np.float64)
    reference = -lengths * generator.uniform(0.5, 2.0, 2 * PAIRS)
    return {
        "lengths": lengths,
        "reference": reference,
        "logps": np.minimum(reference + generator.normal(size=2 * PAIRS), -0.1 * lengths),
        "d": generator.uniform(0, 2, 2 * PAIRS),
        "kl": generator.uniform(0, 3, 2 * PAIRS),
    }


def coefficients(case):
    name, given = case.split(",")[0], CONFIGS[case]
    defaults = OBJECTIVES[name].coefficients
    if OBJECTIVES[name].losses is None:
        defaults = defaults | LINKS[link_of(case)].coefficients
    return {key: given.get(key, default) for key, default in defaults.items()}


def link_of(case):
    return CONFIGS[case].get("link", "lrml" if case.startswith("discopop") else "logistic")


def plain_odds(name, m_w, m_l, c):
    """ASFT's and ORPO's losses, by the odds themselves."""
    odds_w, odds_l = (np.exp(m) / (1 - np.exp(m)) for m in (m_w, m_l))
    if name == "orpo":
        return -m_w - c["odds_lambda"] * np.log(odds_w / (odds_w + odds_l))
    share_w, share_l = (odds ** c["beta"] / (1 + odds ** c["beta"]) for odds in (odds_w, odds_l))
    return -m_w - c["odds_lambda"] * (np.log(share_w) + np.log(1 - share_l))


def plain_loss(case, x, held):
    """Σ of the losses, pair by pair from the papers' formulas; `held` stands in for sg(·)."""
    name, given, total = case.split(",")[0], CONFIGS[case], 0.0
    c, link = coefficients(case), link_of(case)
    for w in range(PAIRS):
        n = w + PAIRS
        length_w, length_l = x["lengths"][w], x["lengths"][n]
        log_w, log_l = x["logps"][w], x["logps"][n]
        ref_w, ref_l = x["reference"][w], x["reference"][n]
        stopped = held if given.get("stop_gradient", True) else x
        if name in ("asft", "orpo"):
            loss = plain_odds(name, log_w / length_w, log_l / length_l, c)
            total += loss - given.get("rpo_alpha", 0.0) * log_w / length_w
            continue
        mean = name.startswith(("fpo", "dpo-norm", "simpo"))
        lpd = log_w / length_w - log_l / length_l if mean else log_w - log_l
        if name.startswith("simpo"):
            u = log_w / length_w - log_l / length_l - c["gamma"] / c["beta"]
        elif name in ("fpo", "dpo-norm"):
            u = (log_w - ref_w) / length_w - (log_l - ref_l) / length_l
        else:
            u = (log_w - log_l) - (ref_w - ref_l)
        if name == "fpo":
            u -= c["alpha"] * (x["d"][n] - stopped["d"][w])
        if name == "tdpo1":
            u -= x["kl"][n] - x["kl"][w]
        if name == "tdpo2":
            u -= c["alpha"] * (x["kl"][n] - stopped["kl"][w])
        if name == "simpo-kl":
            u -= c["alpha"] * (x["kl"][n] / length_l - stopped["kl"][w] / length_w)
        u *= c["beta"]
        wrong = given.get("label_smoothing", 0.0)
        loss = (1 - wrong) * plain_link(link, u, lpd, c)
        if wrong:
            loss += wrong * plain_link(link, -u, -lpd, c)
        total += loss - given.get("rpo_alpha", 0.0) * log_w / length_w
    return total


def plain_gradient(case, x, name, step=1e-5):
    """∂Σloss/∂x[name] by central differences, the stopped branches held where they are."""
    found = np.zeros(2 * PAIRS)
    for i in range(2 * PAIRS):
        up, down = ({**x, name: x[name].copy()} for _ in range(2))
        up[name][i] += step
        down[name][i] -= step
        found[i] = (plain_loss(case, up, x) - plain_loss(case, down, x)) / (2 * step)
    return found


def total_loss(fw, x, config, name=None, leaf=None):
    arrays = {key: fw.array(value) for key, value in x.items()} | ({name: leaf} if name else {})
    reference = arrays.pop("reference")
    return objective_losses(fw.xp, Scores(**arrays), reference, config).sum()


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_values_match_the_plain_formulas(case, seed):
    x, config = random_inputs(seed), config_of(case)
    expected = plain_loss(case, x, x)
    for name, tolerance in (("numpy64", 1e-10), ("torch64", 1e-10), ("mlx32", 1e-6)):
        fw = framework(name)
        assert float(total_loss(fw, x, config)) == pytest.approx(
            expected, rel=tolerance, abs=tolerance
        )


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.parametrize(
    ("backend", "tolerance"), [("torch64", 1e-6), ("mlx64", 1e-6), ("mlx32", 1e-5)]
)
def test_gradients_match_central_differences(case, backend, tolerance):
    fw, x, config = framework(backend), random_inputs(7), config_of(case)
    for name in INPUTS:
        found = gradient(fw, lambda leaf, n=name: total_loss(fw, x, config, n, leaf), x[name])
        expected = plain_gradient(case, x, name)
        scale = max(np.abs(expected).max(), 1e-3)
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=tolerance)


def test_every_objective_is_tested_and_has_a_link():
    assert {case.split(",")[0] for case in CONFIGS} == set(OBJECTIVES)
    assert {link_of(case) for case in CONFIGS} == set(LINKS)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_at_the_start_is_not_zero(objective):
    """The authors' SimPO had none: its margin was the policy's own."""
    x = random_inputs(1)
    start = x | {"logps": x["reference"], "d": np.zeros(2 * PAIRS), "kl": np.zeros(2 * PAIRS)}
    fw, config = framework("torch64"), ObjectiveConfig(objective=objective)
    found = gradient(fw, lambda leaf: total_loss(fw, start, config, "logps", leaf), start["logps"])
    assert (np.abs(found) > 1e-3).all()


def scores_of(x):
    return Scores(**{name: x[name] for name in ("logps", "lengths", "d", "kl")})


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_at_the_start_is_known(objective):
    x, config = random_inputs(2), ObjectiveConfig(objective=objective)
    zeros = np.zeros(2 * PAIRS)
    start = Scores(logps=x["reference"], lengths=x["lengths"], d=zeros, kl=zeros)
    expected = losses_at_reference(scores_of(x), x["reference"], config)
    np.testing.assert_array_equal(pair_losses(start, x["reference"], config), expected)
    if objective in ("asft", "orpo"):
        mean, c = x["reference"] / x["lengths"], config.coefficients
        by_hand = [
            plain_odds(objective, *m, c) for m in zip(mean[:PAIRS], mean[PAIRS:], strict=True)
        ]
        np.testing.assert_allclose(expected, by_hand, rtol=1e-12)
    elif objective.startswith("simpo"):
        mean = x["reference"] / x["lengths"]
        u = 2.0 * (mean[:PAIRS] - mean[PAIRS:]) - 0.5
        np.testing.assert_allclose(expected, np.log1p(np.exp(-u)), rtol=1e-12)
    else:
        value = (np.log(2) + 1) / 2 if objective == "discopop" else np.log(2)
        np.testing.assert_allclose(expected, value, rtol=1e-12)


@pytest.mark.parametrize("case", [case for case in CONFIGS if case.split(",")[0] in HAVE_U])
def test_rewards_are_the_terms_that_the_loss_uses(case):
    x, config = random_inputs(3), config_of(case)
    found = preference_metrics(scores_of(x), x["reference"], config)
    u = preference_u(case, x)
    margin = found["rewards/margins"] - coefficients(case).get("gamma", 0.0)
    assert margin - found["fpo/delta"] == pytest.approx(u.mean(), rel=1e-9)
    assert found["rewards/margins"] == pytest.approx(
        found["rewards/chosen"] - found["rewards/rejected"]
    )


def preference_u(case, x):
    """u of each pair, from the plain loss: the logit of a share e^−loss."""
    name = case.split(",")[0]
    left_out = ("label_smoothing", "rpo_alpha", "link")
    bare = {k: v for k, v in CONFIGS[case].items() if k not in left_out}
    if name == "discopop":  # dpo's u
        name, bare = "dpo", {"beta": bare["beta"]}
    config = ObjectiveConfig(objective=name, **bare)
    losses = objective_losses(numpy_ops, scores_of(x), x["reference"], config)
    return -np.log(np.expm1(losses))


def test_fpo_without_its_constraint_is_normalised_dpo():
    x = random_inputs(4)
    left, right = (
        pair_losses(scores_of(x), x["reference"], ObjectiveConfig(beta=0.3, **changes))
        for changes in ({"objective": "fpo", "alpha": 0.0}, {"objective": "dpo-norm"})
    )
    np.testing.assert_array_equal(left, right)


def test_discopop_does_not_overflow():
    lengths = np.ones(2)
    for apart in (-2000.0, 2000.0):
        scores = Scores(logps=np.array([apart, 0.0]), lengths=lengths)
        config = ObjectiveConfig(objective="discopop", beta=1.0)
        assert np.isfinite(pair_losses(scores, np.zeros(2), config)).all()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"objective": "dpo", "alpha": 1.0}, "alpha is set, but the objective dpo has none"),
        ({"objective": "tdpo1", "alpha": 1.0}, "fpo, simpo-kl, tdpo2"),
        ({"objective": "fpo", "gamma": 1.0}, "gamma is set"),
        ({"objective": "dpo", "discopop_tau": 0.1}, "discopop_tau is set"),
        ({"objective": "simpo", "stop_gradient": False}, "stop_gradient is off"),
        ({"objective": "discopop", "label_smoothing": 0.1}, "label_smoothing is set"),
        ({"objective": "kto"}, "objective is 'kto', expected one of"),
    ],
)
def test_what_an_objective_does_not_use_is_refused_by_name(settings, named):
    with pytest.raises(ConfigError, match=named):
        ObjectiveConfig(**settings)


def test_coefficients_are_the_objectives_own_unless_set():
    assert ObjectiveConfig().coefficient("alpha") == 5.0
    assert ObjectiveConfig(objective="simpo").coefficient("beta") == 2.0
    assert ObjectiveConfig(objective="simpo", beta=1.0).coefficient("beta") == 1.0
    assert ObjectiveConfig(objective="dpo").coefficient("alpha") == 0.0
    changed = dataclasses.replace(ObjectiveConfig(), objective="tdpo2")
    assert changed.coefficient("alpha") == 0.5
