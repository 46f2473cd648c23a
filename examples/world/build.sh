#!/bin/sh
# Rebuild the quickstart world. Run from the repository root, with fpo, torch and transformers
# installed. Takes about ten minutes on two CPU cores.
set -eu
cd "$(dirname "$0")/../.."
PYTHON="${PYTHON:-python}"
export PYTHONPATH="cli:examples${PYTHONPATH:+:$PYTHONPATH}"
"$PYTHON" examples/world/build_tokenizer.py
"$PYTHON" examples/world/build_model.py
"$PYTHON" examples/world/build_pairs.py
"$PYTHON" examples/world/build_sae.py --out "${SAE:-world.safetensors}"
