"""Result rows and predictions to test with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from eosin.results.schema import (
    DataStamp,
    EncoderStamp,
    Predictions,
    ProtocolStamp,
    Result,
)
from eosin.results.statistics import measure

CLASSES = ("stroma", "gland", "fat")


@pytest.fixture
def make_predictions() -> Callable[..., Predictions]:
    """Predictions on a fixed test set, as good as `quality` says; `seed` draws their noise."""

    def make(
        quality: float = 1.0, seed: int = 0, samples: int = 120, groups: int | None = 30
    ) -> Predictions:
        names = np.array([f"tile_{index:04d}" for index in range(samples)])
        label = np.random.default_rng(99).integers(len(CLASSES), size=samples)
        scores = np.random.default_rng(seed).normal(size=(samples, len(CLASSES)))
        scores[np.arange(samples), label] += quality
        return Predictions(
            sample=names,
            group=names if groups is None else np.array([f"g{i % groups}" for i in range(samples)]),
            label=label,
            predicted=scores.argmax(1).astype(np.int64),
            scores=scores.astype(np.float32),
        )

    return make


@pytest.fixture
def make_result() -> Callable[..., Result]:
    """A row for given predictions; `name`, `weights`, `shift` and any field can be set."""

    def make(
        predictions: Predictions,
        name: str = "resnet18.barlow_twins",
        weights: str | None = None,
        shift: str = "none",
        created: str = "2026-01-01T00:00:00+00:00",
        architecture: str = "",
        split: str = "b" * 64,
        **changes: Any,
    ) -> Result:
        fields: dict[str, Any] = {
            "task": "linear",
            "protocol": ProtocolStamp(id="strict", version=1),
            "encoder": EncoderStamp(
                name=name,
                weights_sha256=weights or f"weights of {name}",
                transform="resize 64",
                pooling="average",
                precision="bf16",
                embed_dim=512,
                architecture=architecture,
            ),
            "data": DataStamp(
                name="tissue",
                manifest_sha256="a" * 64,
                split_sha256=split,
                n_train=400,
                n_test=len(predictions.sample),
                classes=CLASSES,
                shift=shift,
            ),
            "seed": 0,
            "selection": {"split": "folds of train", "C": 0.1},
            "metrics": measure(predictions, draws=50),
            "seconds": 1.5,
            "provenance": {"created": created, "versions": {"eosin": "0"}, "hardware": "a CPU"},
        }
        return Result(**{**fields, **changes})

    return make
