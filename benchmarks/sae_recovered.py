"""Cross-entropy recovered by the autoencoders that `compare_sae_training.py … --save` left.

    python -m benchmarks.sae_recovered FOLDER --model MODEL --data PAIRS

`fpo sae check` of each file of FOLDER on the first pairs, as raw text and under the chat template.
"""

import argparse
from pathlib import Path

import fpo
from benchmarks.record import write_result


def main() -> None:
    """Check each; write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=24)
    args = parser.parse_args()
    rows = {}
    for path in sorted(args.folder.glob("*.safetensors")):
        settings = {"model": args.model, "data": args.data, "rows": args.rows}
        checked = fpo.check_sae(sae=path, dtype="float32", backend="torch", **settings)
        values = checked.to_mapping()
        rows[path.stem] = {part: values[part] for part in ("pairs", "raw", "chat")}
    write_result("sae-recovered", {"rows": rows})


if __name__ == "__main__":
    main()
