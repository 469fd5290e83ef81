#!/usr/bin/env bash
# The demonstration: raw text to a pretrained BERT and ELMo and a page of results, in about ten minutes on two cores.
#   bash launch/demo.sh [--minutes 60] [--output demo]
# Run again, it continues where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh demo
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
exec .venv/bin/python experiments/demo/run.py "$@"
