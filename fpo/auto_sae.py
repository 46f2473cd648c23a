"""`sae` set to auto: the published autoencoder that fits a model, else one trained on the pairs."""

import dataclasses
from pathlib import Path

from fpo.conversion import convert_sae, list_saes
from fpo.model_setup import ModelSetup
from fpo.sae_training import default_layer, train_sae
from fpo_core.adapters.lora import select_blocks
from fpo_core.backend.process_group import only_first
from fpo_core.config import ModelConfig, SaeTrainConfig, TrainConfig
from fpo_core.data.cache import cache_root, fingerprint
from fpo_core.data.sources import open_sources
from fpo_core.errors import ConfigError, SaeError
from fpo_core.events import Sink, note

AUTO = ("auto",)
_TEXTS = ("data", "columns", "max_rows", "seed")
_SHARED = ("model", "revision", "trust_remote_code", "backend", "device", "dtype", *_TEXTS)


def with_sae(config: TrainConfig, sink: Sink) -> TrainConfig:
    """The settings with the file that auto comes to; as they are where `sae` is not auto.

    The file is kept in the cache, by the model, the pairs and what was published. Raises
    ConfigError where one must be trained and `yes` is not set, or nothing may be written.
    """
    if config.sae != AUTO:
        return config
    setup = ModelSetup(config.only(ModelConfig))
    source = _published(config)
    layer = None if source else _later_layer(config, setup)
    path = _place(config, setup, source, layer)
    if not path.is_file():
        _check_may_write(config, source)
        if source is None:
            _train(config, path, layer, sink)
        else:
            note(sink, f"converting {source}")
            only_first(setup.group, lambda: convert_sae(source=source, out=path, sink=sink))
    note(sink, f"the autoencoder is {source or 'trained on the pairs'}: {path}")
    return dataclasses.replace(config, sae=(str(path),))


def _published(config: TrainConfig) -> str | None:
    """The source recommended for the model itself; None where there is only another's, or none."""
    try:
        listing = list_saes(model=config.model, num_layers=config.num_layers)
    except SaeError:
        return None
    return next((sae.source for sae in listing.saes if sae.recommended and sae.exact), None)


def _later_layer(config: TrainConfig, setup: ModelSetup) -> tuple[str, ...] | None:
    """The first trained block where it is above the one read by default, which D would not see."""
    first = select_blocks(setup.model.layers, config.num_layers)[0]
    return (str(first),) if first > default_layer(setup.model.layers) else None


def _place(
    config: TrainConfig, setup: ModelSetup, source: str | None, layer: tuple[str, ...] | None
) -> Path:
    key = {"model": setup.model.fingerprint(), "source": source}
    key |= {} if layer is None else {"layer": layer}
    if source is None:
        settings = {name: getattr(config, name) for name in _TEXTS}
        key |= settings | {"data": open_sources(config)["train"].digest()}
    return cache_root(config.cache).parent / "saes" / f"{fingerprint(key)}.safetensors"


def _check_may_write(config: TrainConfig, source: str | None) -> None:
    if config.dry_run:
        raise ConfigError(
            "sae is auto and its file is not there yet, which a dry run does not make: train or "
            "convert one first, or leave dry_run out"
        )
    if source is None and not config.yes:
        raise ConfigError(
            f"no published autoencoder is known for {config.model}, so sae = auto would train a "
            "quick one on the pairs, which takes minutes: set yes, or train one with more texts "
            "(fpo sae train)"
        )


def _train(config: TrainConfig, path: Path, layer: tuple[str, ...] | None, sink: Sink) -> None:
    shared = {name: getattr(config, name) for name in _SHARED}
    trained = train_sae(SaeTrainConfig(**shared, layer=layer, output=str(path)), sink=sink)
    for line in trained.table().below:
        note(sink, line)
