"""Results to report on, and a browser to look at the page with."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from eosin.results.files import write_job
from eosin.results.schema import (
    DataStamp,
    EncoderStamp,
    Predictions,
    ProtocolStamp,
    Result,
)
from eosin.results.statistics import measure

CLASSES = ("stroma", "gland", "fat")
ENCODERS = {
    "resnet18.barlow_twins": (4.0, 2.5),
    "<script>alert(1)</script>": (1.4, 1.2),
    "random/resnet18": (1.0, 0.8),
    "colour_histogram": (2.0, 0.1),
}


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tasks, clean and shifted images, four encoders; one is named `<script>`."""
    folder = tmp_path_factory.mktemp("results")
    for name, qualities in ENCODERS.items():
        for task in ("linear", "knn"):
            for shift, quality in zip(("none", "stain-shift-v1"), qualities, strict=True):
                predictions = _predict(quality, seed=len(name + task + shift))
                row = _row(name, task, shift, predictions)
                write_job(folder, [(row, predictions)])
    return folder


@pytest.fixture(scope="session")
def curve_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training log of 1,000 updates, with a line that holds no loss."""
    path = tmp_path_factory.mktemp("curve") / "log.jsonl"
    lines = [{"update": 1, "knn": 0.5}]
    lines += [{"update": update, "loss": 10 / update + 1} for update in range(1, 1001)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def picture_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "tile.png"
    assert cv2.imwrite(str(path), np.full((8, 8, 3), 200, np.uint8))
    return path


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Opens a page in headless Chromium; returns what it made of it and what it logged."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on PATH to open the page with")

    def run(page: Path, *options: str, width: int = 1280, height: int = 900) -> tuple[str, str]:
        command = [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--window-size={width},{height}", *options, page.as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, "\n".join(re.findall(r".*CONSOLE.*", done.stderr))

    return run


def _predict(quality: float, seed: int) -> Predictions:
    names = np.array([f"tile_{index:03d}" for index in range(150)])
    label = np.random.default_rng(99).integers(len(CLASSES), size=150)
    scores = np.random.default_rng(seed).normal(size=(150, len(CLASSES)))
    scores[np.arange(150), label] += quality
    return Predictions(
        sample=names,
        group=np.array([f"slide_{index % 30}" for index in range(150)]),
        label=label,
        predicted=scores.argmax(1).astype(np.int64),
        scores=scores.astype(np.float32),
    )


def _row(name: str, task: str, shift: str, predictions: Predictions) -> Result:
    return Result(
        task=task,
        protocol=ProtocolStamp(id="strict", version=1),
        encoder=EncoderStamp(
            name=name,
            weights_sha256=f"{len(name):064x}",
            transform="resize 64",
            pooling="average",
            precision="bf16",
            embed_dim=512,
        ),
        data=DataStamp(
            name="tissue",
            manifest_sha256="a" * 64,
            split_sha256="b" * 64,
            n_train=1234,
            n_test=150,
            classes=CLASSES,
            shift=shift,
        ),
        seed=0,
        selection={"split": "folds of train", "C": 0.1 + 0.2},
        metrics=measure(predictions, draws=50),
        seconds=1.5,
        provenance={
            "created": "2026-01-01T00:00:00+00:00",
            "versions": {"eosin": "0.1", "torch": "2.14"},
            "hardware": "a CPU, 2 cores",
        },
    )
