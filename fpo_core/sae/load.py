"""Loading the autoencoders of a run, checked against the model and the trained layers."""

from pathlib import Path
from typing import Any

from fpo_core.adapters.lora import select_blocks
from fpo_core.config import AdapterConfig, FeatureConfig, SaeConfig
from fpo_core.errors import SaeError
from fpo_core.models.folder import ModelFolder
from fpo_core.sae.compatibility import check_compatible, model_doubt
from fpo_core.sae.feature_weights import read_weights
from fpo_core.sae.hook import Hook
from fpo_core.sae.metadata import SaeMeta
from fpo_core.sae.sae import load_sae
from fpo_core.sae.taps import Features, HookedSae
from fpo_core.sae.value_bias import subtract_value_bias


def load_features(
    config: SaeConfig, model: ModelFolder, special: dict[str, tuple[int, ...]]
) -> Features | None:
    """The autoencoders of a run and their hooks; None where the run has none.

    `special` are the tokenizer's special ids by role. Raises SaeError where neither file nor
    settings name a hook, or where layer or width do not fit the model.
    """
    if config.sae is None:
        return None
    if "auto" in config.sae:
        raise SaeError(
            "sae is auto, which train alone makes a file of: give the file that train named, or "
            "that list_saes and convert_sae, or train_sae, lead to"
        )
    hooked: list[HookedSae] = []
    for number, name in enumerate(config.sae):
        sae = load_sae(Path(name))
        override = None if config.hook is None else Hook.parse(config.hook[number])
        hook = check_compatible(sae, model.config, override)
        if sae.without_value_bias and hook.site == "z":
            sae = subtract_value_bias(sae, model, hook.layer)
        hooked.append(HookedSae(sae, hook))
    file = config.feature_weights if isinstance(config, FeatureConfig) else None
    weights = None if file is None else read_weights(Path(file), hooked[0].sae)
    untrained = {token for item in hooked for token in untrained_ids(item.sae, special)}
    doubts = (model_doubt(item.sae, model) for item in hooked)
    known = tuple(doubt for doubt in doubts if doubt is not None)
    return Features(tuple(hooked), tuple(sorted(untrained)), weights, known)


def refuse_doubts(features: Features | None) -> None:
    """Raise SaeError where an autoencoder seems to be of another model."""
    if features is not None and features.doubts:
        raise SaeError(f"{features.doubts[0]}, or do without strict")


def check_constraint_trains(hook: Hook, model: ModelFolder, adapter: AdapterConfig) -> None:
    """Raise SaeError where no trained weight precedes the hook, so that D would always be 0."""
    # A hook before the first trained layer reads activations of a frozen model.
    first = select_blocks(model.layers, adapter.num_layers)[0]
    embeddings_train = adapter.fine_tune_type == "full" and adapter.num_layers < 0
    reads_before_block = hook.site == "resid_pre"
    last_seen = hook.layer - 1 if reads_before_block else hook.layer
    if last_seen < first and not embeddings_train:
        raise SaeError(
            f"the hook {hook} lies before the first trained layer {first}, so the feature "
            "constraint would always be 0: train more layers (num_layers), use an autoencoder of a "
            "later layer, or choose an objective without D"
        )


def untrained_ids(sae: SaeMeta, special: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Ids of the tokens that the autoencoder was not trained on, by its metadata, ascending."""
    ids: set[int] = set()
    for name in sae.untrained_tokens:
        if name.startswith("id:"):
            ids.add(int(name[3:]))
        elif name == "special":
            ids.update(token for role in special.values() for token in role)
        else:
            ids.update(special.get(name, ()))
    return tuple(sorted(ids))


def describe_pooling(features: Features) -> str:
    """How features are pooled, for the key of a reference store."""
    # Part of the key of every stored reference: another wording would make old stores unusable.
    excluded = ",".join(map(str, features.untrained)) or "none"
    return f"mean over completion tokens; left out: {excluded}"


def special_roles(tokenizer: Any) -> dict[str, tuple[int, ...]]:
    """The tokenizer's special ids by role, and all of them under `other`."""
    from fpo_core.data.tokenizer import special_ids

    return special_ids(tokenizer) | {"other": tuple(int(i) for i in tokenizer.all_special_ids)}
