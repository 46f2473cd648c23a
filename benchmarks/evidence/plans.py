"""Which runs the evidence rests on: objectives, ablations of FPO, and feature control."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fpo.comparison.plan import Planned, plan
from fpo.example_inputs import Example, quickstart_world
from fpo.feature_ranking import rank_features
from fpo.world import ATTRIBUTES, make_prompt, make_reply, random_traits
from fpo_convert.sae import convert_sae
from fpo_core.config import CompareConfig, SaeFeaturesConfig

OBJECTIVES, ABLATION, CONTROL, BLOCKS = "objectives", "ablation", "control", "blocks"
SAES = {
    1: Path(__file__).parent / "saes" / "block-1",
    3: Path(__file__).parent / "saes" / "block-3",
}
"""Autoencoders of other blocks than the world's own, of an earlier examples/world/build_sae.py."""
STRONG = 10
"""Factor on the default alpha, for feature control and its baseline without weights."""
TEXTS = 200
"""Replies of either value, to rank an attribute's features by."""


@dataclass(frozen=True)
class World:
    """The quickstart's world, and how its runs are compared."""

    example: Example
    config: CompareConfig
    shared: dict[str, Any]
    """Settings of every run."""

    @classmethod
    def of(cls, output: Path, seeds: Sequence[str], over: Iterable[str]) -> "World":
        """With some settings `over` those of the quickstart and of `fpo compare`, as a grid."""
        example = quickstart_world()
        example.convert(output)
        grid = (*example.grid, "save_every=20", "save_total_limit=1000", *over)
        config = CompareConfig(output=str(output), seeds=tuple(seeds), grid=grid)
        return cls(example, config, example.training(output))

    def objectives(self) -> list[Planned]:
        """Every objective, with every seed."""
        return self._planned(self.config)

    def ablations(self) -> list[Planned]:
        """FPO with one setting changed; without constraint it is the dpo-norm of `objectives`."""
        alpha = self.alpha
        changes: list[dict[str, Any]] = [
            *({"alpha": alpha * factor} for factor in (0.2, 3, STRONG)),
            *({"k": k} for k in (5, 200)),
            {"stop_gradient": False},
            {"normalize_d": True, "alpha": 1.0},
        ]
        return [run for change in changes for run in self._changed(change)]

    def control(self, folder: Path) -> list[Planned]:
        """FPO with a strong constraint on the features of one attribute in place of the top k."""
        runs: list[Planned] = []
        for attribute in ATTRIBUTES:
            file = folder / f"{attribute}.json"
            if not file.is_file():
                self._weigh(attribute, file)
            change = {"alpha": self.alpha * STRONG, "feature_weights": str(file)}
            runs += self._changed(change, {"weights": attribute})
        return runs

    def blocks(self, folder: Path) -> list[Planned]:
        """FPO with autoencoders of other blocks, and with all of them at once.

        D is normalised, because activations of different blocks differ in size.
        """
        files = {2: Path(self.shared["sae"])}
        for block, source in SAES.items():
            files[block] = folder / f"block-{block}.safetensors"
            if not files[block].is_file():
                convert_sae(source, files[block])
        runs: list[Planned] = []
        for blocks in ((1,), (2,), (3,), (1, 2, 3)):
            saes = [str(files[block]) for block in blocks]
            change = {"sae": saes, "normalize_d": True, "alpha": 1.0}
            runs += self._changed(change, {"block": "+".join(map(str, blocks))})
        return runs

    @property
    def alpha(self) -> float:
        """FPO's alpha in the objectives' runs."""
        return next(r for r in self.objectives() if r.objective == "fpo").config.coefficient(
            "alpha"
        )

    def _planned(self, config: CompareConfig, **change: Any) -> list[Planned]:
        return plan(config, self.shared | change, str(self.example.settings))

    def _changed(self, change: dict[str, Any], name: dict[str, Any] | None = None) -> list[Planned]:
        """FPO with other settings, reported under them or under a `name`."""
        config = replace(self.config, objectives=("fpo",), grid=self._without(change))
        return [replace(run, varied=name or change) for run in self._planned(config, **change)]

    def _without(self, change: dict[str, Any]) -> tuple[str, ...]:
        grid = self.config.grid or ()
        applying = (text for text in grid if "." not in text.partition("=")[0] or "fpo." in text)
        return tuple(
            text for text in applying if text.partition("=")[0].removeprefix("fpo.") not in change
        )

    def _weigh(self, attribute: str, file: Path) -> None:
        """Let `fpo sae features` tell the attribute's two values apart, in either direction."""
        file.parent.mkdir(parents=True, exist_ok=True)
        sides = [file.with_name(f"{attribute}-{value}.txt") for value in ATTRIBUTES[attribute]]
        for path, value in zip(sides, ATTRIBUTES[attribute], strict=True):
            path.write_text("".join(f"{text}\n" for text in _replies(attribute, value)))
        config = SaeFeaturesConfig(
            model=self.shared["model"],
            sae=self.shared["sae"],
            positive=str(sides[1]),
            negative=str(sides[0]),
            out=str(file),
            absolute=True,
            backend=self.config.backend,
        )
        rank_features(config)


def _replies(attribute: str, value: str) -> list[str]:
    """Replies with this value; for both values the other attributes are drawn alike."""
    rng = random.Random(0)
    replies: list[str] = []
    for _ in range(TEXTS):
        traits = random_traits(rng, **{attribute: value})
        replies.append(make_reply(rng, make_prompt(rng).item, traits))
    return replies
