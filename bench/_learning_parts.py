"""The parts of the benchmark of learning, and the file of their results."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import _learning_settings as settings
from bench._learning_scores import BASELINES, SIDES
from eosin import atomic
from eosin.encoders.colour_histogram import NAME as COLOUR_HISTOGRAM
from eosin.provenance import stamp


@dataclass(frozen=True, kw_only=True)
class Part:
    """One run with its evaluation."""

    method: str
    """A method, or the name of a baseline."""
    side: str
    seed: int
    lr: float | None = None
    """Given for the runs that a learning rate is chosen by."""

    @property
    def name(self) -> str:
        """Tells it from all others."""
        return " ".join(str(value) for value in self.key() if value is not None)

    def key(self) -> tuple[str, str, int, float | None]:
        """What its line is found by."""
        return self.method, self.side, self.seed, self.lr


def sweep(method: str, side: str) -> list[Part]:
    """The runs that choose a side's learning rate."""
    seed = settings.SWEEP_SEED
    return [Part(method=method, side=side, seed=seed, lr=lr) for lr in settings.LEARNING_RATES]


def all_parts(seeds: Sequence[int]) -> list[Part]:
    """Everything: baselines, sweeps, and seed by seed the sides of the gate, then the other."""
    parts = [Part(method=COLOUR_HISTOGRAM, side="baseline", seed=0)]
    parts += [Part(method="random", side="baseline", seed=seed) for seed in seeds]
    for method in settings.METHODS:
        for side in ("official", "lightly"):
            parts += sweep(method, side)
    gated = [side for side in SIDES if side != "pathology"]
    parts += [
        Part(method=method, side=side, seed=seed)
        for sides in (gated, ["pathology"])
        for seed in seeds
        for method in settings.METHODS
        for side in sides
    ]
    return parts


def asked_parts(method: str, side: str, seed: int) -> list[Part]:
    """One part by its name, with the sweep that it needs; seed 99 is the sweep alone."""
    if method in BASELINES:
        return [Part(method=method, side="baseline", seed=seed)]
    if method not in settings.METHODS or side not in SIDES:
        raise SystemExit(
            f"--only {method} {side}: the methods are {', '.join(settings.METHODS)} with the sides "
            f"{', '.join(SIDES)}, or {', '.join(BASELINES)} with the side baseline."
        )
    parts = sweep(method, chooser(side))
    return (
        parts
        if seed == settings.SWEEP_SEED
        else [*parts, Part(method=method, side=side, seed=seed)]
    )


def chooser(side: str) -> str:
    """The side whose sweep chooses the learning rate of a side."""
    return "official" if side == "pathology" else side


class Results:
    """The lines of `results.jsonl`: what was measured, with what settings and on what data."""

    def __init__(self, out: Path, identity: Mapping[str, Any] | None) -> None:
        self._path = out / "results.jsonl"
        text = self._path.read_text() if self._path.is_file() else ""
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
        if identity is None:
            return
        if not self.lines:
            self.add({"kind": "about", **identity, "provenance": stamp()})
        differing = [key for key in identity if self.lines[0].get(key) != identity[key]]
        if differing:
            raise SystemExit(
                f"{self._path} has results of other {', '.join(differing)}; give another --out."
            )

    def add(self, line: dict[str, Any]) -> None:
        """Appends one line, whole or not at all."""
        self.lines.append(line)
        atomic.write_text(self._path, "".join(json.dumps(each) + "\n" for each in self.lines))

    def runs(self) -> list[dict[str, Any]]:
        """The finished parts."""
        return [line for line in self.lines if line["kind"] == "run"]

    def find(self, part: Part) -> dict[str, Any] | None:
        """The line of a part, if it is finished."""
        keys = ("method", "side", "seed", "lr_given")
        found = (line for line in self.runs() if tuple(line[key] for key in keys) == part.key())
        return next(found, None)

    def chosen_lr(self, method: str, side: str) -> float:
        """The learning rate whose run was best within the training parts; of equals the least."""
        lines = [self.find(part) for part in sweep(method, chooser(side))]
        means = [np.mean(list(line["selection"].values())) for line in lines if line is not None]
        assert len(means) == len(lines), f"the sweep of {method} {side} is not finished"
        return settings.LEARNING_RATES[int(np.argmax(means))]


def expected_s(part: Part, results: Results) -> float:
    """The time of finished parts most like this one."""
    for like in (("method", "side"), ("method",), ()):
        alike = [
            line["train_s"] * _length(part.lr) / _length(line["lr_given"]) + line["evaluate_s"]
            for line in results.runs()
            if all(line[key] == getattr(part, key) for key in like)
            and (line["side"] == "baseline") == (part.side == "baseline")
        ]
        if alike:
            return float(np.mean(alike))
    return 0.0


def _length(lr_given: float | None) -> float:
    """The length of a run in whole runs."""
    return 1.0 if lr_given is None else settings.SWEEP_SHARE
