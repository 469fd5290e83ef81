#!/usr/bin/env bash
# All checks: lint, format, types, tests. `--all` adds the slow tests and the parity tests against torch and transformers.
# Other arguments go to pytest: `bash launch/test.sh tests/models -k bert`.
set -euo pipefail
cd "$(dirname "$0")/.."

extras=dev,demo
pytest_args=()
for argument in "$@"; do
    if [ "$argument" = --all ]; then extras=dev,demo,hf,notebook,tpu; fi
    pytest_args+=("$argument")
done
. launch/venv.sh "$extras"

export JAX_PLATFORMS=cpu PYTHONUNBUFFERED=1
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/basedpyright --pythonpath .venv/bin/python
exec .venv/bin/python -m pytest -n 2 --durations 15 "${pytest_args[@]}"
