"""The kinds of files that are damaged, and how the program reads each."""

import importlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from fpo.world import assets
from fpo_convert.sae import convert_sae, sae_info
from fpo_core.adapters.lora import Adapter
from fpo_core.adapters.reader import load_adapter
from fpo_core.adapters.writer import save_adapter
from fpo_core.backend.policy import PolicyInfo
from fpo_core.config import AdapterConfig, ModelConfig, ReferenceConfig
from fpo_core.data import cache
from fpo_core.data.report import DataReport, SplitReport
from fpo_core.data.token_store import RowWriter, TokenisedPairs, pack
from fpo_core.data.tokenizer import load_tokenizer, tokenizer_digest
from fpo_core.events import Event
from fpo_core.loss.scores import Scores
from fpo_core.models.folder import ModelFolder
from fpo_core.models.layout import Layout
from fpo_core.reference.build import extend_store
from fpo_core.reference.key import StoreKey
from fpo_core.sae.sae import load_sae
from fpo_core.train.checkpoints import Checkpoints, Origin
from fpo_core.train.state import RunState
from tests.core.pretend import PretendPolicy
from tests.core.pretend import config as training
from tests.helpers import random_pairs

D_SAE = 40
PROBE = np.arange(4, 36, dtype=np.int32).reshape(2, 16)


@dataclass(frozen=True)
class Kind:
    """Files of one kind: how a sound folder is made, and how it is read.

    `read` gives what was read as a digest, what the reader was told on the way, and, for files that
    carry no hash of themselves, the fingerprint that stores and checkpoints keep of them.
    """

    make: Callable[[Path], object]
    files: str
    read: Callable[[Path], dict[str, Any]]
    count: int
    """Of 5,000."""
    copied: bool = True
    """Whether each damage gets a folder of its own, since reading may mend or remove files."""
    libraries: tuple[str, ...] = ()
    """What is loaded before children are forked."""


def digest(*values: Any) -> str:
    """A short name of arrays and plain values."""
    total = sha256()
    for value in values:
        if isinstance(value, dict):
            items = (item for pair in sorted(value.items()) for item in pair)
            total.update(digest(*items).encode())
        elif isinstance(value, np.ndarray):
            total.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        else:
            total.update(repr(value).encode())
    return total.hexdigest()[:16]


def found(*values: Any, told: Iterable[str] = (), fingerprint: str = "") -> dict[str, Any]:
    """The answer of a reader."""
    return {"digest": digest(*values), "told": list(told), "fingerprint": fingerprint}


class Frozen(PretendPolicy):
    """A reference model without a model: scores and features follow from the tokens."""

    info = PolicyInfo("pretend", "cpu", "float32", None, 2, 4, 8, 8)

    def score(self, batch: Any, *_: Any, **__: Any) -> Scores:
        """Sums over each sequence's own tokens, so that padding changes nothing."""
        inside = np.arange(batch.tokens.shape[1]) < np.asarray(batch.lengths)[:, None]
        logps = -(batch.tokens * inside).sum(axis=1) / 128.0
        pooled = np.zeros((len(logps), D_SAE), np.float32)
        for row, (tokens, length) in enumerate(zip(batch.tokens, batch.lengths, strict=True)):
            np.add.at(pooled[row], tokens[:length] % D_SAE, 0.125)
        counted = batch.completion_lengths().astype(np.float64)
        return Scores(logps=logps, lengths=counted, pooled=pooled, feature_lengths=counted)


_KEY = StoreKey("model", None, "sae", "blocks.0.hook_resid_post", "mean")
_ROWS = random_pairs(200)


def read_store(folder: Path) -> dict[str, Any]:
    """As every command finds a store: opened, extended by what it lacks, and read whole."""
    told: list[str] = []

    def hear(event: Event) -> None:
        if event.kind == "warning":
            told.append(event.values["message"])

    config = ReferenceConfig(rows_per_shard=50, tokens_per_batch=512)
    store = extend_store(folder, _KEY, Frozen(), [_ROWS], config, hear, widths=[D_SAE])  # pyright: ignore[reportArgumentType]
    batch = store.batch(_ROWS.keys(), D_SAE)
    return found(batch.logps, batch.pooled, batch.truncated, told=told)


class Weights(PretendPolicy):
    """What a checkpoint saves, and what is loaded from it."""

    def __init__(self, floats: int, step: int) -> None:
        """Two weights and twice as many numbers of the optimiser."""
        super().__init__()
        values = np.arange(floats // 2, dtype=np.float32) + step
        self.arrays = {"0.q.lora_A": values.reshape(2, -1), "0.q.lora_B": -values.reshape(-1, 2)}

    def trained(self) -> dict[str, np.ndarray]:
        """The weights."""
        return self.arrays

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Two moments of each."""
        parts = {f"{name}.{part}": w / 3 for name, w in self.arrays.items() for part in "mv"}
        return parts | {"step": np.array(3)}

    def load_trained(self, weights: dict[str, np.ndarray]) -> None:
        """Keep what was read."""
        self.loaded = dict(weights)

    def load_optimizer_state(self, state: dict[str, np.ndarray]) -> None:
        """Keep what was read."""
        self.loaded |= {f"state {name}": array for name, array in state.items()}


def make_checkpoints(folder: Path, floats: int) -> None:
    """Two checkpoints, of step 6 and 12; the second is damaged."""
    settings = training(folder, save_total_limit=2)
    for step in (6, 12):
        state = RunState(step=step, num_tokens=100 * step, best_value=0.5, best_step=6)
        state.window.add({"loss": 0.25}, 10, 1.0)
        origin = Origin(settings.to_mapping(), {"model": "m"}, Origin.made_by(Frozen.info, 1))
        policy: Any = Weights(floats, step)
        Checkpoints(folder, keep=2).save(policy, state, origin, 17 * step)


def read_checkpoints(folder: Path) -> dict[str, Any]:
    """The newest checkpoint, weights and optimiser included."""
    told: list[str] = []
    policy: Any = Weights(4, 0)
    checkpoint = Checkpoints(folder, keep=2).newest(told.append)
    checkpoint.load_into(policy, training(folder))
    named = json.dumps(asdict(checkpoint.state) | asdict(checkpoint.origin), sort_keys=True)
    return found(policy.loaded, named, checkpoint.log_bytes, told=told)


def make_cache(folder: Path) -> None:
    """Tokens of 20,000 pairs."""
    chance = np.random.default_rng(0)
    rows = [chance.integers(4, 5000, (3, 9)).tolist() for _ in range(20_000)]
    report = DataReport(splits={"train": SplitReport(read=len(rows), kept=len(rows))})

    def write(new: Path) -> DataReport:
        with RowWriter(new, "train") as writer:
            writer.append(pack((i, *row) for i, row in enumerate(rows, start=1)))
        return report

    cache.build(folder / "rows", {"version": 1}, write)


def read_cache(folder: Path) -> dict[str, Any]:
    """The rows of the cache; None of it, and they would be tokenised anew."""
    opened = cache.open_cached(folder / "rows")
    if opened is None:
        return found("anew", told=["tokenised anew"])
    rows: TokenisedPairs = opened[0]["train"]
    return found(rows._tokens[:], rows.fingerprint(), rows.source_rows(), rows.lengths())


def make_sae(folder: Path) -> None:
    """The embedded world's autoencoder in our format."""
    folder.mkdir(parents=True, exist_ok=True)
    convert_sae(assets().sae, folder / "sae.safetensors")


def read_sae(folder: Path) -> dict[str, Any]:
    """Weights and metadata."""
    sae = load_sae(folder / "sae.safetensors")
    info = sae_info(folder / "sae.safetensors", verify=True) | {"file": ""}
    return found(sae.arrays(), json.dumps(info, sort_keys=True))


def make_adapter(folder: Path) -> None:
    """An adapter of two modules in four blocks."""
    chance = np.random.default_rng(0)
    weights = {
        f"{block}.self_attn.{module}.lora_{side}": chance.normal(size=shape).astype(np.float32)
        for block in range(4)
        for module in ("q_proj", "v_proj")
        for side, shape in (("A", (4, 64)), ("B", (64, 4)))
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(folder, Adapter(4, 2.0, 0.0, 4, weights), base_model="m", layout=Layout())


def read_adapter(folder: Path) -> dict[str, Any]:
    """The adapter as a run starts from it."""
    adapter = load_adapter(folder, 8)
    values = (adapter.rank, adapter.scale, adapter.dropout, adapter.num_layers)
    return found(adapter.weights, *values)


def make_model(folder: Path) -> None:
    """The embedded world's model in two files with an index."""
    shutil.copytree(assets().model, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {}
    for part, keys in enumerate((sorted(weights)[::2], sorted(weights)[1::2]), start=1):
        name = f"model-0000{part}-of-00002.safetensors"
        save_file({key: weights[key] for key in keys}, folder / name, {"format": "pt"})
        names |= dict.fromkeys(keys, name)
    index = {"metadata": {"total_size": 0}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def read_model(folder: Path, backend: str) -> dict[str, Any]:
    """Logits, as a command that generates would compute them."""
    config = ModelConfig(model=str(folder), device="cpu", dtype="float32")
    model = ModelFolder.locate(config)
    module = importlib.import_module(f"fpo_{backend}.policy")
    policy = getattr(module, {"torch": "TorchPolicy", "mlx": "MlxPolicy"}[backend])(
        model.path, config, AdapterConfig(rank=1, num_layers=1), None
    )
    return found(policy.logits(PROBE), fingerprint=model.fingerprint())


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """The tokens of a conversation."""
    tokenizer: Any = load_tokenizer(str(folder))
    messages = [{"role": "user", "content": "please pass the salt"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return found(text, tokenizer(text)["input_ids"], fingerprint=tokenizer_digest(tokenizer))


def make_store(folder: Path) -> None:
    """A store of 200 pairs in four shards."""
    read_store(folder)


def _of_model(files: str, backend: str, count: int) -> Kind:
    read = partial(read_model, backend=backend)
    return Kind(make_model, files, read, count, libraries=(f"fpo_{backend}.policy",))


_NEWEST = "step-00000012/"
KINDS: dict[str, Kind] = {
    "store shard": Kind(make_store, "shard-*", read_store, 900),
    "store manifest": Kind(make_store, "manifest.json", read_store, 500),
    "checkpoint 1 KB": Kind(
        partial(make_checkpoints, floats=128), f"{_NEWEST}*.safetensors", read_checkpoints, 400
    ),
    "checkpoint 8 MB": Kind(
        partial(make_checkpoints, floats=1 << 20),
        f"{_NEWEST}*.safetensors",
        read_checkpoints,
        500,
        copied=False,
    ),
    "checkpoint 600 MB": Kind(
        partial(make_checkpoints, floats=75 << 20),
        f"{_NEWEST}opti*.safetensors",
        read_checkpoints,
        40,
        copied=False,
    ),
    "checkpoint state": Kind(
        partial(make_checkpoints, floats=128), f"{_NEWEST}state.json", read_checkpoints, 700
    ),
    "token cache": Kind(make_cache, "rows/*", read_cache, 400),
    "canonical SAE": Kind(make_sae, "sae.safetensors", read_sae, 400),
    "adapter weights": Kind(make_adapter, "adapter*.safetensors", read_adapter, 300),
    "adapter config": Kind(make_adapter, "adapter_config.json", read_adapter, 300),
    "tokenizer": Kind(make_model, "*token*.json", read_tokenizer, 100, libraries=("transformers",)),
    "model weights, torch": _of_model("model-*.safetensors", "torch", 110),
    "model index, torch": _of_model("*.index.json", "torch", 60),
    "model config, torch": _of_model("config.json", "torch", 60),
    "model weights, mlx": _of_model("model-*.safetensors", "mlx", 110),
    "model index, mlx": _of_model("*.index.json", "mlx", 60),
    "model config, mlx": _of_model("config.json", "mlx", 60),
}
