"""Benchmarks: each file compares one thing with a peer; `make bench` runs all of them."""

import os

# As the `eosin` command does, for both sides: threads that wait would otherwise spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
