"""Running the experiment: tuning arm by arm, then what was chosen with several seeds.

A row of results is one run: what was measured, and each sample's verdict. It lies beside the run as
soon as it is there; a run whose row is among the committed results is not repeated.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.evidence.arms import ARMS, EVERY, UNTUNED, Arm
from benchmarks.evidence.controls import encoder_file
from benchmarks.evidence.feature_control import start_folder, weights_file
from benchmarks.evidence.ground import Ground, Judging, Sampled
from benchmarks.evidence.rows import Row, mean_score, metrics_of, same_run
from fpo.comparison.layout import run_folder
from fpo.comparison.plan import Planned
from fpo.comparison.runs import Comparison
from fpo.comparison.shared_setup import SharedSetups
from fpo.sinks import print_progress
from fpo_core.config import CompareConfig, TrainConfig
from fpo_core.data.tokenizer import load_tokenizer
from fpo_core.io.atomic import write_json
from fpo_core.sae.sae import load_sae

ROW_FILE = "row.json"
_SHARED: dict[str, Any] = {"report": False, "backend": "torch", "device": "cpu"}


@dataclass
class Part:
    """The runs of a stage, which are measured on one held-out part."""

    ground: Ground
    name: str
    """The stage: `tune` is measured on the part of that name, any other on `test`."""
    output: Path
    known: Sequence[Row] = ()
    """Rows of earlier sittings."""
    _setups: SharedSetups = field(default_factory=SharedSetups)

    @property
    def folder(self) -> Path:
        """Where the runs lie."""
        return self.output / self.name

    @cached_property
    def prompts(self) -> list[str]:
        """The part's prompts; writes its files."""
        return self.ground.write(self.folder / "pairs", "tune" if self.name == "tune" else "test")

    @cached_property
    def base(self) -> dict[str, Any]:
        """Settings of all runs."""
        assert self.prompts
        example = self.ground.example()
        example.convert(self.folder)
        settings = example.training(self.folder) | _SHARED | dict(self.ground.shared)
        settings = {
            k: v for k, v in settings.items() if k not in ("alpha", "beta", "learning_rate")
        }
        places = {"data": str(self.folder / "pairs"), "output": str(self.folder)}
        return settings | places | {"preset": "none"}

    @cached_property
    def tokenizer(self) -> Any:
        """The model's."""
        return load_tokenizer(str(self.base["model"]))

    @cached_property
    def judging(self) -> Judging:
        """The judge of samples, made when the first are there."""
        return self.ground.judging(self.output)

    def start(self, seed: int = 0) -> Row:
        """The row of the model before training, with samples of this seed."""
        of = {"arm": "start", "change": {}, "seed": seed}
        for row in self.known:
            if same_run(row, of):
                return row
        planned = self._planned("fpo", ARMS["fpo"], {"learning_rate": self.ground.rates[0]}, seed)
        path = self.folder / f"start-row{seed or ''}.json"
        if not path.exists():
            comparison = self._comparison([planned], start_folder(self.folder, seed))
            start = comparison.measured_start()
            self._write(path, of, start["metrics"], {})
        return json.loads(path.read_text(encoding="utf-8"))

    def row(self, name: str, arm: Arm, change: Mapping[str, Any], seed: int) -> Row:
        """The row of a run, which is trained where there is none."""
        of = {"arm": name, "change": dict(change), "seed": seed}
        for row in self.known:
            if same_run(row, of):
                return row
        planned = self._planned(name, arm, change, seed)
        path = run_folder(self.folder, planned) / ROW_FILE
        if not path.exists():
            _, (result,) = self._comparison([planned]).results()
            self._write(path, of, result["metrics"], result)
        return json.loads(path.read_text(encoding="utf-8"))

    def adapter(self, name: str, change: Mapping[str, Any], seed: int) -> Path:
        """The adapter of a run that was trained here."""
        return run_folder(self.folder, self._planned(name, ARMS[name], change, seed))

    def _planned(self, name: str, arm: Arm, change: Mapping[str, Any], seed: int) -> Planned:
        objective = arm.objective
        settings = self.base | dict(arm.settings) | dict(change)
        if arm.encoder:
            sae = encoder_file(arm.encoder, Path(self.base["sae"]), self.folder)
            settings |= {"sae": str(sae), "normalize_d": True}
        if arm.features:
            file = weights_file(arm.features, self.base, self.folder)
            # All features are stored: these may be weaker than those within a smaller cap. And D
            # normalised by these alone has no bound where the reference hardly fires them.
            whole = load_sae(Path(self.base["sae"])).d_sae
            settings |= {"feature_weights": str(file), "feature_cap": whole, "normalize_d": False}
        settings |= {"objective": objective, "seed": seed}
        config = TrainConfig.from_mapping(settings, "the experiment")
        return Planned(objective, {"arm": name} | dict(change), seed, config)

    def _comparison(self, runs: Sequence[Planned], folder: Path | None = None) -> Comparison:
        count = len(self.prompts)
        config = CompareConfig(
            **{"output": str(folder or self.folder), "samples": count, "eval_pairs": count},
            **{"objectives": ("fpo",)} | dict(self.ground.sampling),
        )
        return Comparison(config, runs, None, print_progress, setups=self._setups)

    def _write(
        self, path: Path, of: dict[str, Any], metrics: Mapping[str, Any], result: Mapping[str, Any]
    ) -> None:
        most = self.ground.sampling["max_tokens"]
        # A result has no tokens of its completions, and one that was cut within a symbol may have
        # fewer when it is read again: nearly as long counts as cut.
        sizes = [len(self.tokenizer(text).input_ids) for text in metrics["completions"]]
        samples = [
            Sampled(prompt, text, cut=size >= most - 2)
            for prompt, text, size in zip(self.prompts, metrics["completions"], sizes, strict=True)
        ]
        row = of | metrics_of(metrics, result) | {"samples": self.judging.judged(samples)}
        write_json(path, row)
        print(of, f"score {mean_score(row):.3f}", flush=True)


def tuned(part: Part, names: Sequence[str]) -> Iterator[Row]:
    """Rows of every arm at every rate and then, at its best rate, with one more change.

    Where the best rate is the grid's lowest or highest, one beyond is tried.
    """
    yield part.start()
    for name in names:
        arm = ARMS[name]
        beta = part.ground.betas[arm.objective]
        rates = part.ground.rates
        rows = [part.row(name, arm, {"learning_rate": r, "beta": beta}, 0) for r in rates]
        best = max(rows, key=mean_score)["change"]["learning_rate"]
        beyond = {rates[0]: rates[0] ** 2 / rates[1], rates[-1]: rates[-1] ** 2 / rates[-2]}
        if rate := beyond.get(best):
            change = {"learning_rate": float(f"{rate:.2g}"), "beta": beta}
            rows.append(part.row(name, arm, change, 0))
        yield from rows
        if second := arm.second(beta):
            yield part.row(name, arm, max(rows, key=mean_score)["change"] | second, 0)


def frontier(
    part: Part, tuning: Sequence[Row], names: Sequence[str], seeds: Sequence[int]
) -> Iterator[Row]:
    """Rows of every arm at its tuned β, at every rate and for every number of steps."""
    yield part.start()
    for seed in seeds:
        for name in names:
            for rate in part.ground.rates:
                for steps in part.ground.lengths:
                    change = chosen(tuning, name) | {"learning_rate": rate}
                    lasting = dict.fromkeys(("iters", "steps_per_eval", "save_every"), steps)
                    yield part.row(name, ARMS[name], change | lasting, seed)


def chosen(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """What tuning chose for an arm: the settings of the best score."""
    return max((row for row in rows if row["arm"] == name), key=mean_score)["change"]


def tested(
    part: Part, tuning: Sequence[Row], names: Sequence[str], seeds: Sequence[int]
) -> Iterator[Row]:
    """Rows of every arm as it was tuned, with every seed; `start` is one to be sampled again."""
    yield part.start()
    for seed in seeds:
        for name in names:
            if name == "start":
                yield part.start(seed)
                continue
            change = {} if name in UNTUNED else chosen(tuning, name if name in ARMS else "fpo")
            yield part.row(name, EVERY[name], change, seed)
