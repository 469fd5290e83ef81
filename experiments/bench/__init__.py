"""Benchmarks beside other people's code: `python -m experiments.bench --list`. What is measured: docs/bench.md."""
