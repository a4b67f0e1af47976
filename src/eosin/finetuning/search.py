"""The choice of the learning rate on held-out images, and the training with the chosen one."""

import json
import math
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eosin.atomic import write_json
from eosin.engine import distributed
from eosin.engine.sharing import remove_folder
from eosin.errors import Diverged, UsageError
from eosin.finetuning.classifier import Classifier
from eosin.finetuning.prediction import predict
from eosin.finetuning.training import (
    Setup,
    batch_size_of,
    train_classifier,
    updates_of,
)
from eosin.probes._criteria import CRITERIA
from eosin.protocols._division import Divided, Fold
from eosin.provenance import sha256_of

_Score = Mapping[str, float]
"""Of the criterion and `cross_entropy`; of a training that diverged, nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """A trained classifier, and how its learning rate was chosen, as plain JSON values."""

    classifier: Classifier
    selection: Mapping[str, Any]


def fine_tune(setup: Setup, divided: Divided, criterion: str, folder: Path) -> Tuned:
    """Trains with each learning rate on the first fold, then with the best one on all.

    Each is judged on what the fold holds out, after its last update, by the criterion, and at equal
    scores by the cross-entropy; one with which training diverges is not chosen. A choice on all of
    five folds would cost five times as much and is not made; `selection` says so.

    Args:
        setup: what to train, and how.
        divided: what to train and choose on.
        criterion: a key of `CRITERIA`.
        folder: for what a killed process takes up again; it lasts.

    Raises:
        Diverged: training with each rate did, or with the chosen one on all images.
        InputError: an image cannot be read.
        Interrupted: the process was asked to stop; the same call goes on.
        UsageError: there are several learning rates and no fold to choose one on.
    """
    _claim(folder, setup, divided, criterion)
    rates, settings = setup.settings.learning_rates, setup.settings
    scores: dict[float, _Score] = {}
    if len(rates) > 1:
        if not divided.folds:
            raise UsageError(
                f"There are {len(rates)} learning rates to choose from, but the division of the "
                "protocol holds no images out to choose on; name one."
            )
        for rate in rates:
            scores[rate] = _judge(setup, divided.folds[0], rate, criterion, folder)
        if not any(scores.values()):
            raise Diverged(
                f"Fine-tuning {setup.encoder.name} diverged with every learning rate "
                f"({', '.join(f'{rate:g}' for rate in rates)}); the logs are in {folder}. Choose "
                "lower ones."
            )
    best = max(rates, key=lambda rate: _rank(scores, rate, criterion))
    classifier = train_classifier(setup, divided.train, best, folder / "chosen")
    count = sum(len(part.index) for part in divided.train)
    selection: dict[str, Any] = {
        "split": _selected_on(divided) if scores else "nothing is chosen",
        "n_fit": count,
        "learning_rate": best,
        "updates": updates_of(settings, count),
        "batch_size": batch_size_of(settings, count),
    }
    if scores:
        selection[criterion] = scores[best][criterion]
        selection["tried"] = {
            f"{rate:g}": scores[rate].get(criterion, "diverged") for rate in rates
        }
    return Tuned(classifier=classifier, selection=selection)


def _rank(scores: Mapping[float, _Score], rate: float, criterion: str) -> tuple[float, float]:
    score = scores.get(rate)
    if not score:
        return -math.inf, 0.0
    return score[criterion], -score["cross_entropy"]


def _judge(setup: Setup, fold: Fold, rate: float, criterion: str, folder: Path) -> _Score:
    """Trains on a fold and scores what it holds out; a score that is known is read."""
    own = folder / f"rate-{rate:g}"
    path = own / "score.json"
    known = json.loads(path.read_text()) if path.is_file() else None
    known = distributed.from_main(known)
    if known is not None:
        return known
    try:
        score = _score(setup, fold, rate, criterion, own)
    except Diverged as error:
        if distributed.is_main():
            print(f"learning rate {rate:g}: {error}", file=sys.stderr)
        score = {}
    if distributed.is_main():
        write_json(path, score)
    remove_folder(own / "checkpoints")
    return score


def _score(setup: Setup, fold: Fold, rate: float, criterion: str, own: Path) -> _Score:
    classifier = train_classifier(setup, fold.fit, rate, own)
    held_out = fold.held_out
    images = setup.splits[held_out.split]
    probabilities = predict(
        classifier,
        images,
        held_out.index,
        precision=setup.precision,
        title=f"judging {setup.encoder.name} at {rate:g}",
    )
    labels = images.labels[held_out.index]
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return {
        criterion: CRITERIA[criterion](probabilities.argmax(1).astype(np.int64), labels),
        "cross_entropy": float(-np.log(of_label.clip(1e-12)).mean()),
    }


def _selected_on(divided: Divided) -> str:
    return ("the first of " if len(divided.folds) > 1 else "") + divided.selected_on


def _claim(folder: Path, setup: Setup, divided: Divided, criterion: str) -> None:
    """Takes up a folder of the very same job, and empties one of another.

    The caller's name of it need not tell settings of a protocol that was changed in place.
    """
    parts = [
        *divided.train,
        *(each for fold in divided.folds for each in (*fold.fit, fold.held_out)),
    ]
    job = sha256_of(
        {
            "settings": asdict(setup.settings),
            "criterion": criterion,
            "parts": [[part.split, part.index.tolist()] for part in parts],
            "seed": setup.seed,
            "precision": setup.precision,
            "processes": distributed.world_size(),
        }
    )
    path = folder / "job.json"
    if distributed.is_main() and not _is_of(path, job):
        shutil.rmtree(folder, ignore_errors=True)
        write_json(path, {"job": job})
    distributed.barrier()


def _is_of(path: Path, job: str) -> bool:
    try:
        return json.loads(path.read_text()) == {"job": job}
    except (OSError, ValueError):
        return False
