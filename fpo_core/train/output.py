"""What a run leaves in its output folder."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.numpy import save_file

from fpo_core.adapter_write import save_adapter
from fpo_core.adapters import Adapter, select_blocks
from fpo_core.config import TrainConfig
from fpo_core.files import write_atomically, write_json
from fpo_core.model_folder import ModelFolder, flatten_rope
from fpo_core.policy import Policy

LOG_FILE = "log.jsonl"
CONFIG_FILE = "fpo_config.json"
TOKENIZER_FILES = ("*token*", "*.jinja", "vocab*", "merges*", "special_tokens_map.json")


@dataclass(frozen=True)
class RunState:
    """Where a run stands, beside its weights."""

    step: int = 0
    num_tokens: int = 0
    skipped: int = 0
    best_loss: float | None = None
    best_step: int | None = None


@dataclass(frozen=True)
class RunFolder:
    """The output folder: the trained result at its top, `best/`, `checkpoints/last/`, the log."""

    path: Path
    model: ModelFolder
    config: TrainConfig

    @property
    def log(self) -> Path:
        """The metrics, one JSON object a line."""
        return self.path / LOG_FILE

    def begin(self) -> None:
        """Make the folder and write the settings; a log of an earlier run is replaced."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        write_json(self.path / CONFIG_FILE, self.config.to_mapping())

    def save_result(self, policy: Policy, folder: Path | None = None) -> None:
        """Write the adapter, or the whole model with its tokenizer, to the top or to `folder`."""
        folder = folder or self.path
        if self.config.fine_tune_type == "full":
            policy.save_model(folder)
            flatten_rope(folder / "config.json")
            for pattern in TOKENIZER_FILES:
                for file in self.model.path.glob(pattern):
                    shutil.copy2(file, folder / file.name)
            return
        adapter = Adapter(
            rank=self.config.rank,
            scale=self.config.scale,
            dropout=self.config.dropout,
            num_layers=len(select_blocks(self.model.layers, self.config.num_layers)),
            weights=policy.trained(),
        )
        save_adapter(
            folder,
            adapter,
            base_model=self.config.model,
            layout=self.model.layout,
        )

    def save_best(self, policy: Policy) -> None:
        """Keep this as the best result so far."""
        self.save_result(policy, self.path / "best")

    def save_checkpoint(self, policy: Policy, state: RunState) -> None:
        """Write weights, optimiser and state to `checkpoints/last`; the former stays until then."""
        last = self.path / "checkpoints" / "last"
        new, old = last.with_name("last.new"), last.with_name("last.old")
        shutil.rmtree(new, ignore_errors=True)
        write_atomically(new / "trained.safetensors", lambda p: save_file(policy.trained(), p))
        optimiser = policy.optimiser_state()
        write_atomically(new / "optimiser.safetensors", lambda p: save_file(optimiser, p))
        write_json(new / "state.json", asdict(state) | {"config": self.config.to_mapping()})
        if last.exists():
            last.rename(old)
        new.rename(last)
        shutil.rmtree(old, ignore_errors=True)
