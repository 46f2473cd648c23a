"""The steps of a run: batches from the buffer to each learner, reports, checkpoints, a stop."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fpo_core.backend.process_group import Group, any_of, only_first
from fpo_core.errors import StoppedError
from fpo_core.events import Event, Sink
from fpo_core.sae.metadata import SaeMeta
from fpo_core.sae.sae import Sae
from fpo_core.sae_training.folding import folded, write_folded
from fpo_core.sae_training.learner import Learner
from fpo_core.sae_training.run_files import SaeRunFiles
from fpo_core.sae_training.shuffle_buffer import ShuffleBuffer

Stop = Callable[[], int | None]


@dataclass(frozen=True)
class Loop:
    """How a run goes, besides its recipe."""

    files: SaeRunFiles
    metas: Sequence[SaeMeta]
    """Where each autoencoder reads, and where it comes from."""
    origin: dict[str, object]
    """What a run that goes on must have in common."""
    dtype: str
    steps_per_report: int
    save_every: int
    group: Group
    emit: Sink
    stop: Stop

    def run(self, learners: Sequence[Learner], buffer: ShuffleBuffer) -> None:
        """All steps that are left. Raises StoppedError, after a checkpoint, where asked to stop."""
        recipe = learners[0].recipe
        share = slice(self.group.rank, None, self.group.size)
        begun, first = time.monotonic(), learners[0].step
        while learners[0].step < recipe.steps:
            for learner, x in zip(learners, buffer.batch(recipe.batch_tokens), strict=True):
                learner.learn(learner.kernels.array(x[share]))
            step = learners[0].step
            last = step == recipe.steps
            if step % self.steps_per_report == 0 or last:
                pace = (time.monotonic() - begun) / (step - first)
                self._report(learners, pace)
            signal = self._asked()
            if signal is not None or step % self.save_every == 0 or last:
                only_first(self.group, lambda: self._save(learners, buffer))
            if signal is not None and not last:
                raise StoppedError(
                    f"stopped after step {step} of {recipe.steps}: resume goes on from there",
                    signal,
                )

    def _asked(self) -> int | None:
        signal = self.stop()
        if self.group.size == 1:
            return signal
        return (signal or 2) if any_of(self.group, signal is not None) else None

    def _report(self, learners: Sequence[Learner], pace: float) -> None:
        recipe, hooks = learners[0].recipe, {}
        for learner, meta in zip(learners, self.metas, strict=True):
            learner.look()
            hooks[str(meta.hook)] = {
                "fvu": learner.loss,
                "l0": learner.l0,
                "dead_share": learner.dead / recipe.d_sae,
                "threshold": learner.threshold,
            }
        step = learners[0].step
        values = {
            "steps": recipe.steps,
            "tokens": step * recipe.batch_tokens,
            "rate": recipe.rate(step),
            "tokens_per_second": recipe.batch_tokens / pace,
            "eta_seconds": pace * (recipe.steps - step),
            "hooks": hooks,
        }
        self.emit(Event("sae", step, values))

    def _save(self, learners: Sequence[Learner], buffer: ShuffleBuffer) -> None:
        # The state first: a run that is killed between both writes the file again.
        self.files.save(learners, buffer, self.origin)
        for learner, meta, path in zip(learners, self.metas, self.files.results, strict=True):
            self.write(path, fold(learner, meta, learner.threshold))

    def write(self, path: Path, sae: Sae) -> None:
        """Write a canonical file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_folded(path, sae, self.dtype)


def fold(learner: Learner, meta: SaeMeta, threshold: float) -> Sae:
    """The canonical autoencoder of a learner as it is now."""
    parameters = {n: learner.kernels.numpy(x) for n, x in learner.parameters.items()}
    return folded(parameters, learner.scaling, learner.recipe, meta, threshold)
