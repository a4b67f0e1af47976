"""The choice of a network's weights: measured now and then, and the best are kept."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from eosin.atomic import replacing, write_json
from eosin.engine.trainable import Observer
from eosin.nuclei.hovernet import HoVerNet

Measure = Callable[[HoVerNet], Mapping[str, float]]
"""Scores a network. It must leave no trace in it or in any generator."""

_WEIGHTS, _SCORES = "best.safetensors", "best.json"


class Choosing:
    """Keeps the best weights of a phase in its folder.

    What is kept depends on the weights alone, so that a run that is killed between a measurement
    and its checkpoint measures the same once more and keeps the same.

    Args:
        folder: of the phase.
        measure: scores a network; `None`: nothing is chosen.
        metric: the score that decides.
        times: how often, evenly over the phase and at its end.
    """

    def __init__(self, folder: Path, measure: Measure | None, metric: str, times: int) -> None:
        self._folder, self._measure = folder, measure
        self._metric, self._times = metric, times

    def every(self, updates: int) -> int:
        """Gives the updates between measurements."""
        return updates if self._measure is None else max(1, updates // self._times)

    def observer(self, network: HoVerNet, updates: int) -> Observer:
        """Gives what the training loop calls."""
        return Observer() if self._measure is None else _Keeping(self, network)

    def weights(self) -> Mapping[str, Tensor] | None:
        """Reads the best weights; `None` where nothing is chosen."""
        path = self._folder / _WEIGHTS
        return load_file(path) if self._measure is not None and path.is_file() else None

    def best(self) -> dict[str, Any]:
        """Says at which update they were measured, and how they scored."""
        path = self._folder / _SCORES
        return json.loads(path.read_text()) if path.is_file() else {}

    def look(self, network: HoVerNet, update: int) -> Mapping[str, float]:
        """Measures the network, and keeps its weights if none before was better."""
        assert self._measure is not None
        scores = dict(self._measure(network))
        known = self.best()
        is_again = bool(known) and known["chosen_update"] >= update
        if not known or is_again or scores[self._metric] >= known[self._metric]:
            tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
            with replacing(self._folder / _WEIGHTS) as temporary:
                save_file(tensors, temporary)
            write_json(self._folder / _SCORES, {"chosen_update": update, **scores})
        return {f"held_out/{name}": value for name, value in scores.items()}


class _Keeping(Observer):
    def __init__(self, choosing: Choosing, network: HoVerNet) -> None:
        self._choosing, self._network = choosing, network

    def measure(self, update: int, loss: float) -> Mapping[str, float]:
        return self._choosing.look(self._network, update)
