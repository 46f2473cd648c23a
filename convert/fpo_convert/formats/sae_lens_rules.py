"""Two faults of SAELens files, recognised by version and settings: centring and thresholds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpo_convert.formats.json_file import flag, mapping, read_json
from fpo_convert.formats.sae_lens_cfg import version
from fpo_convert.source_formula import Options
from fpo_core.sae.hook import Hook

_LAYER_NORM_FAMILIES = (
    "gpt2",
    "gpt-neo",
    "gpt-j",
    "pythia",
    "opt-",
    "bloom",
    "distilgpt2",
    "stablelm",
)
_CENTRED_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
_UNPROCESSED_SINCE = (3, 19, 2)  # loads models without centring them unless asked
RUNNER_CONFIG = "runner_cfg.json"
_FAULT_FIRST, _FAULT_LAST = (6, 14, 0), (6, 54, 8)


def is_centred(path: Path, cfg: Mapping[str, Any], hook: Hook | None, options: Options) -> bool:
    """Whether training inputs were centred: by option, by cfg or table of releases, else by age."""
    if options.centre is not None:
        return options.centre
    kwargs = mapping(path, cfg, "model_from_pretrained_kwargs")
    if "center_writing_weights" in kwargs:
        return bool(kwargs["center_writing_weights"]) and _may_be_centred(cfg, hook)
    return _processed(cfg) and _may_be_centred(cfg, hook)


def lacks_value_bias(path: Path, cfg: Mapping[str, Any], hook: Hook | None) -> bool:
    """Whether the input is z as TransformerLens has it where it processed the model's weights."""
    if hook is None or hook.site != "z":
        return False
    if flag(path, cfg, "fpo_without_value_bias", default=False):
        return True
    kwargs = mapping(path, cfg, "model_from_pretrained_kwargs")
    return flag(path, kwargs, "fold_value_biases", default=_processed(cfg))


def _processed(cfg: Mapping[str, Any]) -> bool:
    """Whether SAELens had TransformerLens process weights, as it did before 3.19.2."""
    trained = version(cfg.get("sae_lens_training_version")) or version(cfg.get("sae_lens_version"))
    return bool(cfg["legacy"]) and (trained is None or trained < _UNPROCESSED_SINCE)


def _may_be_centred(cfg: Mapping[str, Any], hook: Hook | None) -> bool:
    model = str(cfg.get("model_name") or "").lower().split("/")[-1]
    family = any(model.startswith(name) for name in _LAYER_NORM_FAMILIES)
    return family and hook is not None and hook.site in _CENTRED_SITES


def threshold_fault(
    folder: Path, cfg: Mapping[str, Any], norm_factor: float | None
) -> tuple[float, tuple[str, ...]]:
    """Factor on the thresholds that SAELens 6.14.0 to 6.54.8 saved too large by the norm factor.

    It concerns final saves (jumprelu) of batchtopk and matryoshka that were trained with
    expected_average_only_in and decoder-norm rescaling. Returns (factor, warnings).
    """
    trained = version(cfg.get("sae_lens_training_version")) or version(cfg.get("sae_lens_version"))
    suspect = (
        cfg.get("architecture") == "jumprelu"
        and trained is not None
        and _FAULT_FIRST <= trained <= _FAULT_LAST
    )
    if not suspect:
        return 1.0, ()
    runner_config = folder / RUNNER_CONFIG
    runner = read_json(runner_config) if runner_config.is_file() else {}
    sae = mapping(folder / RUNNER_CONFIG, runner, "sae")
    details = mapping(folder, cfg, "training_architecture_details")
    architecture = cfg.get("training_architecture") or sae.get("architecture")
    if architecture is not None and "batchtopk" not in str(architecture):
        return 1.0, ()
    rescale = details.get("rescale_acts_by_decoder_norm", sae.get("rescale_acts_by_decoder_norm"))
    normalize = sae.get("normalize_activations", runner.get("normalize_activations"))
    if rescale is False or normalize not in (None, "expected_average_only_in"):
        return 1.0, ()
    certain = architecture is not None and rescale is True and normalize is not None
    # Files on the hub lack the runner's configuration: there who states the factor decides.
    folded = cfg.get("normalize_activations") in (None, "none")
    if norm_factor and (certain or folded):
        return 1.0 / norm_factor, ()
    known = "was" if certain else "may have been"
    return 1.0, (
        f"{folder} {known} saved by a SAELens release (6.14.0 to 6.54.8) that writes thresholds "
        "too large by the norm factor: if its L0 is too low, convert again with norm_factor",
    )
