"""Log-probabilities of tiny models against transformers' own: families, layouts, lengths.

    python benchmarks/compare_families.py [--write] [family ...]

`--write` puts the table into docs/backends.md.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "convert"), str(ROOT / "cli")]

from tests.fast_blas import load_fast_blas  # noqa: E402

load_fast_blas()

from fpo_core.config import StepConfig  # noqa: E402
from fpo_core.errors import FpoError  # noqa: E402
from tests.backends import family_matrix  # noqa: E402

LENGTHS = {"short": family_matrix.SHORT, "beyond": family_matrix.BEYOND}


def cells(backend, folder):
    """What each length comes to, packed and plain: the larger gap, or the refusal."""
    found = []
    for sizes in LENGTHS.values():
        data = family_matrix.pairs(sizes)
        expected = family_matrix.expected_logps(folder, data)
        try:
            gaps = [
                family_matrix.gap(family_matrix.open_model(backend, folder, step), data, expected)
                for step in (StepConfig(), StepConfig(plain=True))
            ]
            found.append("/".join(f"{gap:.0e}" for gap in gaps))
        except FpoError as error:
            found.append(str(error)[-150:])
        except Exception as error:
            found.append(f"{type(error).__name__} {str(error)[:150]}")
    return found


if __name__ == "__main__":
    names = sys.argv[1:] or list(family_matrix.FAMILIES)
    for name in names:
        for layout in family_matrix.LAYOUTS:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary) / "m"
                try:
                    family_matrix.write(name, folder, layout)
                except Exception as error:
                    print(name, layout, "WRITE", type(error).__name__, str(error)[:300])
                    continue
                for backend in ("torch", "mlx"):
                    try:
                        print(
                            name,
                            "|",
                            layout,
                            "|",
                            backend,
                            "|",
                            *cells(backend, folder),
                            flush=True,
                        )
                    except Exception as error:
                        print(
                            name,
                            layout,
                            backend,
                            "TRANSFORMERS",
                            type(error).__name__,
                            str(error)[:300],
                        )
