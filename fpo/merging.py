"""What `fpo fuse` does: merge, load the result, compare, and only then let it be seen."""

import importlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo.backends import build_policy
from fpo.session import FROZEN, Session
from fpo_cli.console.ui import Ui
from fpo_core.adapters.lora import Adapter
from fpo_core.adapters.merge import write_fused
from fpo_core.adapters.merge_check import FuseCheck, check_fused, probe_tokens
from fpo_core.config import FuseConfig
from fpo_core.errors import ConfigError, ModelError
from fpo_core.evaluation.model_card import CARD_FILE, PICTURE, fuse_card, write_card
from fpo_core.io.atomic import new_folder
from fpo_core.models.weights import Dequantiser


@dataclass(frozen=True)
class _Unfused:
    """Logits on the probe, and the precision that they were computed in."""

    base: np.ndarray
    adapted: np.ndarray
    dtype: str


def run_fuse(config: FuseConfig, ui: Ui) -> dict[str, Any]:
    """Merge, check and keep; the mapping that --json prints."""
    session = Session(config)
    adapter = session.start_adapter
    if adapter is None:
        raise ConfigError("adapter is not set: give --adapter, the folder of what to merge")
    dtype = None if config.save_dtype == "base" else config.save_dtype
    out = Path(config.out).expanduser()
    with new_folder(out) as folder:
        ui.note(f"{session.backend}, {session.model.name}: logits with the adapter")
        probe = probe_tokens(int(session.model.config["vocab_size"]))
        unfused = _unfused(session, adapter, probe)
        ui.note("merging")
        dequantiser = _dequantiser(session)
        fused = write_fused(session.model, adapter, folder, dequantiser=dequantiser, dtype=dtype)
        ui.note("logits of the merged model")
        found = build_policy(session.backend, folder, config, FROZEN, None).logits(probe)
        check = check_fused(unfused.base, unfused.adapted, found, [*fused.dtypes, unfused.dtype])
        _describe(session, folder, adapter.fine_tune_type, check, fused.dtypes)
    quantised = "" if dequantiser is None else ", dequantised"
    ui.say(
        f"{out}: {', '.join(fused.dtypes)}{quantised}, {fused.bytes / 2**20:.1f} MiB; logits "
        f"within {check.largest:.1e} of the adapter's, which moves its base by {check.moved:.1e}"
    )
    return {
        "out": str(out),
        "backend": session.backend,
        "fine_tune_type": adapter.fine_tune_type,
        "dtypes": fused.dtypes,
        "dequantised": dequantiser is not None,
        "bytes": fused.bytes,
        "check": check.to_mapping(),
    }


def _describe(
    session: Session, folder: Path, kind: str, check: FuseCheck, dtypes: list[str]
) -> None:
    """Leave a model card, with what the adapter's own card says and shows."""
    source = Path(session.config.adapter or "")
    card, picture = source / CARD_FILE, source / PICTURE
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    write_card(folder, fuse_card(session.config.model, kind, check, dtypes, text))
    if picture.is_file():
        shutil.copy2(picture, folder / PICTURE)


def _unfused(session: Session, adapter: Adapter, probe: np.ndarray) -> _Unfused:
    """The model without and with its adapter; it is let go before the merged one is loaded."""
    shape = session.adapter_config(FROZEN)
    policy = build_policy(session.backend, session.model.path, session.config, shape, None)
    base = policy.logits(probe)
    policy.load_trained(policy.trained() | adapter.weights)
    return _Unfused(base, policy.logits(probe), policy.info.dtype)


def _dequantiser(session: Session) -> Dequantiser | None:
    """What reads the weights of a quantised base; ModelError where nothing here can."""
    model = session.model
    if model.quantisation is None:
        return None
    if "quantization" not in model.config:
        raise ModelError(
            f"{model.name} is quantised by something other than mlx-lm, which cannot be undone "
            "here: give the unquantised model"
        )
    module = importlib.import_module("fpo_mlx.dequantise")
    return module.Dequantiser(model.weight_files, model.quantisation)
