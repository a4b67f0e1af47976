"""Times us and a peer in one process, interleaved, and prints medians, spread and ratio."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from eosin.provenance import stamp


@dataclass(frozen=True)
class Contestant:
    """One side of a comparison: a name and what is timed."""

    name: str
    run: Callable[[], object]


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each side")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    return parser


def compare(
    name: str, ours: Contestant, peer: Contestant, *, rounds: int, device: torch.device
) -> dict[str, object]:
    """Runs both sides in turn and gives the line that `--json` prints; lower times are better.

    The ratio is the median over the rounds of the peer's time divided by ours in the same round,
    which a machine that gets slower meanwhile disturbs least.
    """
    for side in (ours, peer):
        side.run()  # warm up: allocations, and kernels that are chosen at first use
    times: dict[str, list[float]] = {ours.name: [], peer.name: []}
    for _ in range(rounds):
        for side in (ours, peer):
            times[side.name].append(_time(side.run, device))
    pairs = zip(times[ours.name], times[peer.name], strict=True)
    ratios = [theirs / own for own, theirs in pairs]
    return {
        "name": name,
        "ours": statistics.median(times[ours.name]) * 1e3,
        "peer": statistics.median(times[peer.name]) * 1e3,
        "ratio": statistics.median(ratios),
        "unit": "ms",
        "peer_name": peer.name,
        "rounds": rounds,
        "ours_spread": [min(times[ours.name]) * 1e3, max(times[ours.name]) * 1e3],
        "peer_spread": [min(times[peer.name]) * 1e3, max(times[peer.name]) * 1e3],
        "ratio_spread": [min(ratios), max(ratios)],
        "environment": {**stamp(), "device": str(device), "threads": torch.get_num_threads()},
    }


def _time(run: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def show(lines: list[dict[str, object]], *, as_json: bool) -> None:
    """Prints a table for people and, as the last line, the first comparison for machines."""
    table = Table("benchmark", "ours", "peer", "ratio", "spread of the ratio", "peer is")
    for line in lines:
        low, high = line["ratio_spread"]  # pyright: ignore[reportGeneralTypeIssues]
        table.add_row(
            str(line["name"]),
            f"{line['ours']:.1f} {line['unit']}",
            f"{line['peer']:.1f} {line['unit']}",
            f"{line['ratio']:.1f}x",
            f"{low:.1f} to {high:.1f}",
            str(line["peer_name"]),
        )
    Console(width=120).print(table)
    if as_json:
        print(json.dumps(lines[0]))
