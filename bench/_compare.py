"""Times us and our peers in one process, interleaved, and prints medians, spread and ratio."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from eosin.provenance import stamp

if TYPE_CHECKING:
    import torch


def _prepare_nothing() -> None:
    pass


@dataclass(frozen=True)
class Contestant:
    """One side of a comparison: a name and what is timed."""

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] = _prepare_nothing
    """Called before each run, and not timed."""


def arguments(description: str, rounds: int = 7) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="timed rounds of each side")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    return parser


def measure(
    sides: Sequence[Contestant],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Runs all sides in turn, round by round, and gives the seconds of each side by its name.

    Args:
        sides: who competes.
        rounds: how often each side is timed.
        clock: what is read before and after a run; `time.process_time` counts CPU seconds, which
            other work on the machine disturbs little.
        warm_up: whether each side runs once before: allocations, and what is chosen at first use.
    """
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds + warm_up):
        for side in sides:
            side.prepare()
            started = clock()
            side.run()
            seconds = clock() - started
            if number >= warm_up:
                times[side.name].append(seconds)
    return times


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Their seconds divided by ours, round by round: above 1 means that ours is faster."""
    return [peer / own for own, peer in zip(ours, theirs, strict=True)]


def as_line(
    name: str,
    ours: str,
    peer: str,
    times: Mapping[str, Sequence[float]],
    *,
    count: int | None = None,
    unit: str = "ms",
    environment: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Gives the line that `--json` prints of two sides that were measured together.

    The ratio is the median over the rounds of the peer's time divided by ours in the same round,
    which a machine that gets slower meanwhile disturbs least.

    Args:
        name: of the benchmark.
        ours: name of our side in `times`.
        peer: name of the other side.
        times: seconds by side and round.
        count: how many pieces one run makes: figures are then pieces a second, not milliseconds.
        unit: what the figures count.
        environment: facts to add to the stamp of software and machine.
    """

    def figure(seconds: float) -> float:
        return seconds * 1e3 if count is None else count / seconds

    def spread(side: str) -> list[float]:
        return sorted([figure(min(times[side])), figure(max(times[side]))])

    by_round = ratios(times[ours], times[peer])
    return {
        "name": name,
        "ours": figure(statistics.median(times[ours])),
        "peer": figure(statistics.median(times[peer])),
        "ratio": statistics.median(by_round),
        "unit": unit,
        "peer_name": peer,
        "rounds": len(by_round),
        "ours_spread": spread(ours),
        "peer_spread": spread(peer),
        "ratio_spread": [min(by_round), max(by_round)],
        "environment": {**stamp(), **(environment or {})},
    }


def compare(
    name: str, ours: Contestant, peer: Contestant, *, rounds: int, device: "torch.device"
) -> dict[str, Any]:
    """Measures the wall time of two sides that compute with PyTorch; see `as_line`."""
    import torch

    def finishing(run: Callable[[], object]) -> Callable[[], None]:
        def run_to_the_end() -> None:
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return run_to_the_end

    sides = [Contestant(side.name, finishing(side.run), side.prepare) for side in (ours, peer)]
    times = measure(sides, rounds=rounds)
    environment = {"device": str(device), "threads": torch.get_num_threads()}
    return as_line(name, ours.name, peer.name, times, environment=environment)


def versions_of(*packages: str) -> dict[str, str]:
    """Names the versions of packages that the stamp does not name."""
    return {package: version(package) for package in packages}


def show(
    lines: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
    columns: Mapping[str, str] | None = None,
) -> None:
    """Prints a table for people and, as the last line, the first comparison for machines.

    Args:
        lines: the comparisons.
        as_json: whether to print the last line.
        columns: further figures, by the head of their column: the key that holds them, which a
            line may lack.
    """
    further = columns or {}
    name, unit = Column("benchmark", no_wrap=True), Column("unit", no_wrap=True)
    table = Table(name, "ours", "peer", unit, "ratio", "spread of the ratio", *further)
    for line in lines:
        low, high = line["ratio_spread"]
        table.add_row(
            str(line["name"]),
            f"{line['ours']:.1f}",
            f"{line['peer']:.1f}",
            str(line["unit"]),
            f"{line['ratio']:.1f}x",
            f"{low:.1f} to {high:.1f}",
            *(f"{line[key]:.2f}" if key in line else "" for key in further.values()),
        )
    peers = dict.fromkeys(str(line["peer_name"]) for line in lines)
    table.caption = f"peer: {'; '.join(peers)}"
    Console(width=140).print(table)
    if as_json:
        rest = [
            {key: value for key, value in line.items() if key != "environment"}
            for line in lines[1:]
        ]
        print(json.dumps({**lines[0], **({"rows": rest} if rest else {})}))
