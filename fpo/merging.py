"""Merging an adapter: write, load the result, compare, and only then let it be seen."""

import importlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpo.backends import build_policy
from fpo.model_setup import FROZEN, ModelSetup
from fpo.publishing import check_account, push
from fpo.results import Result
from fpo.workflow import workflow
from fpo_core.adapters.lora import Adapter
from fpo_core.adapters.merge import Fused, write_fused
from fpo_core.adapters.merge_check import MUCH_LOST, FuseCheck, check_fused, probe_tokens
from fpo_core.adapters.virtual_tokens import VirtualTokens
from fpo_core.config import FuseConfig
from fpo_core.errors import ConfigError, FpoError, ModelError
from fpo_core.evaluation.model_card import CARD_FILE, PICTURE, fuse_card, write_card
from fpo_core.events import Sink, note, warn
from fpo_core.io.atomic import new_folder
from fpo_core.models.weights import Dequantiser
from fpo_core.pairs.goals import pass_on


@dataclass(frozen=True)
class _Unfused:
    """Logits on the probe, and the precision that they were computed in."""

    base: np.ndarray
    adapted: np.ndarray
    dtype: str


@dataclass(frozen=True, kw_only=True)
class FusedModel(Result):
    """A model with its adapter merged into `out`."""

    out: Path
    backend: str
    fine_tune_type: str
    dtypes: list[str]
    """Precisions of the written weights."""
    dequantised: bool
    bytes: int
    check: FuseCheck
    """How far the logits of the merged model are from those of model and adapter."""


@workflow(FuseConfig)
def fuse(config: FuseConfig, sink: Sink) -> FusedModel:
    """Merge an adapter into its model, for transformers and mlx-lm alike.

    The result appears only if its logits on a probe are those of model and adapter; ModelError
    says by how much they differ. A base that mlx-lm quantised is dequantised.
    """
    setup = ModelSetup(config)
    adapter = setup.start_adapter
    if adapter is None:
        raise ConfigError("adapter is not set: give the folder of what to merge")
    if isinstance(adapter, VirtualTokens):
        raise ConfigError(
            f"{config.adapter} is a {adapter.fine_tune_type} of virtual tokens, which no weight of "
            "the model can hold: use it as adapter, in generate, chat, evaluate or train"
        )
    setup.warn_of_base(config.adapter, sink)
    out = Path(config.out).expanduser()
    check_account(config.push_to_hub)
    with new_folder(out) as folder:
        note(sink, f"{setup.backend}: loading {setup.model.name}, logits with the adapter")
        probe = probe_tokens(int(setup.model.config["vocab_size"]))
        # Logits first, merge second: the two models are never in memory together.
        unfused = _unfused(setup, adapter, probe)
        dequantiser = _dequantiser(setup)

        def merged(dtype: str | None) -> tuple[Fused, FuseCheck]:
            note(sink, "merging")
            fused = write_fused(setup.model, adapter, folder, dequantiser=dequantiser, dtype=dtype)
            note(sink, "loading the merged model, and its logits")
            logits = build_policy(setup.backend, folder, config, FROZEN, None).logits(probe)
            dtypes = [*fused.dtypes, unfused.dtype]
            # Raises inside `new_folder`, so a wrong merge is removed and never seen.
            return fused, check_fused(unfused.base, unfused.adapted, logits, dtypes)

        fused, check = precise_enough(merged, config.save_dtype, sink)
        pass_on(config.adapter or "", folder)
        kind = adapter.fine_tune_type
        _describe(setup, folder, kind, check, fused.dtypes, config.push_to_hub)
    push(out, config.push_to_hub, sink)
    return FusedModel(
        out=out,
        backend=setup.backend,
        fine_tune_type=kind,
        dtypes=fused.dtypes,
        dequantised=dequantiser is not None,
        bytes=fused.bytes,
        check=check,
    )


def precise_enough(
    merged: Callable[[str | None], tuple[Fused, FuseCheck]], save_dtype: str, sink: Sink
) -> tuple[Fused, FuseCheck]:
    """The merge in the precision that is asked for; under auto, in one that keeps the adapter."""
    if save_dtype != "auto":
        fused, check = merged(None if save_dtype == "base" else save_dtype)
    else:
        try:
            fused, check = merged(None)
            why = f"{check.lost:.0%} of the adapter's effect" if check.lost > MUCH_LOST else ""
        except ModelError:  # the check refused it: in float32 it passes, or fails for good
            fused, check, why = None, None, "too much of the adapter's effect"
        if fused is None or check is None or (why and fused.dtypes != ["float32"]):
            note(sink, f"rounding to the base's precision loses {why}: writing float32 instead")
            fused, check = merged("float32")
    if check.lost > MUCH_LOST and fused.dtypes != ["float32"]:
        warn(
            sink,
            f"rounding to {', '.join(fused.dtypes)} lost {check.lost:.0%} of the adapter's effect: "
            "set save_dtype to float32 to keep it",
        )
    return fused, check


def _has_chat_template(setup: ModelSetup) -> bool:
    """Whether the model is asked by one; not where it has no tokenizer, which merging needs not."""
    try:
        return bool(setup.tokenizer.chat_template)
    except FpoError:
        return False


def _describe(
    setup: ModelSetup,
    folder: Path,
    kind: str,
    check: FuseCheck,
    dtypes: list[str],
    published: str | None,
) -> None:
    """Leave a model card, with what the adapter's own card says and shows."""
    source = Path(setup.config.adapter or "")
    card, picture = source / CARD_FILE, source / PICTURE
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    about = fuse_card(
        setup.config.model,
        kind,
        check,
        dtypes,
        text,
        result=published,
        chat=_has_chat_template(setup),
    )
    write_card(folder, about)
    if picture.is_file():
        shutil.copy2(picture, folder / PICTURE)


def _unfused(setup: ModelSetup, adapter: Adapter, probe: np.ndarray) -> _Unfused:
    """The model without and with its adapter; it is let go before the merged one is loaded."""
    shape = setup.adapter_config(FROZEN)
    policy = build_policy(setup.backend, setup.model.path, setup.config, shape, None)
    base = policy.logits(probe)
    policy.load_trained(policy.trained() | adapter.weights)
    return _Unfused(base, policy.logits(probe), policy.info.dtype)


def _dequantiser(setup: ModelSetup) -> Dequantiser | None:
    """What reads the weights of a quantised base; ModelError where nothing here can."""
    model = setup.model
    if model.quantisation is None:
        return None
    if "quantization" not in model.config:
        raise ModelError(
            f"{model.name} is quantised by something other than mlx-lm, which cannot be undone "
            "here: give the unquantised model"
        )
    module = importlib.import_module("fpo_mlx.dequantise")
    return module.Dequantiser(model.weight_files, model.quantisation)
