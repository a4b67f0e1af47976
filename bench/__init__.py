"""Benchmarks: one file for each speed claim, run as `python -m bench.NAME --json`."""
