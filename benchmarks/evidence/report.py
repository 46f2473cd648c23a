"""docs/evidence.md: the paper's claims one by one, with what was measured beside each."""

import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

from benchmarks.evidence import claims
from benchmarks.evidence.results import Evidence
from fpo_core.io.atomic import write_atomically

DOCUMENT = Path(__file__).parents[2] / "docs" / "evidence.md"
_HEAD = """# Evidence

Made by `python -m benchmarks.evidence{flag}`; do not edit. The paper compares models of 2B and 9B
parameters by a judge, on H100s. Here are two that a laptop trains: the quickstart's world, one
million parameters, whose grammar judges every sample exactly, and SmolLM2-135M-Instruct on pairs of
moods, without a judge. Our figures stand beside each claim, those that contradict it included.
± is a standard deviation over seeds, [ ] a 95% bootstrap interval. {machine}.
"""
_CLAIMS: tuple[tuple[str, str, Callable[[Evidence], Iterable[str]]], ...] = (
    (
        "Table 2: FPO is at least as accurate as its baselines, and more diverse",
        "Win rates by a judge model are not measured.",
        claims.accuracy_and_diversity,
    ),
    (
        "Fig. 3: FPO keeps the sequential KL of rejected completions down",
        "Temperatures are not varied.",
        claims.sequential_kl,
    ),
    (
        "Fig. 4: FPO takes SimPO's memory, and less than TDPO2",
        "The paper: FPO within 1% of SimPO, TDPO2 17.6% above FPO.",
        claims.memory_and_time,
    ),
    (
        "Fig. 4: D is consistent with sequential KL",
        "Two controls stand in for the autoencoder: were they as good, features would not matter.",
        claims.consistency,
    ),
    (
        "Table 3: the constraint's weight and the stop-gradient matter",
        "The paper finds α = 0.5 best, and the stop-gradient better than none.",
        claims.ablations,
    ),
    (
        "Table 4: weights on an attribute's features control that attribute",
        "The paper's weights suppress it. Here: the oracle's score of each attribute, 0 to 1.",
        claims.control,
    ),
    (
        "Table 7: several autoencoders are no better than one late one",
        "",
        claims.several,
    ),
    (
        "What comparing costs",
        "Not of the paper: `fpo compare` trains all from one reference pass.",
        claims.cost,
    ),
)


def write_report(path: Path, world: Evidence | None, smollm2: Evidence | None) -> None:
    """Write the document from what was measured; what was not is said so."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    machine = f"{platform.system()}, {platform.machine()}, {versions}"
    lines = [_HEAD.format(flag="" if smollm2 is None else " --smollm2", machine=machine)]
    models = {"The quickstart's world": world, "SmolLM2-135M-Instruct": smollm2}
    for title, remark, measured in _CLAIMS:
        lines += [f"## {title}", "", *([remark, ""] if remark else [])]
        for model, evidence in models.items():
            body = ["Not measured."] if evidence is None else measured(evidence)
            lines += [f"### {model}", "", *body, ""]
    text = "\n".join(lines).rstrip() + "\n"
    write_atomically(path, lambda at: _write(at, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
