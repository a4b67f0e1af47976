"""The recipes of the benchmark's five encoders at their full size, for one update."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from eosin import recipes
from eosin.engine.log import read_log
from eosin.pretrain.run import pretrain_encoder

BENCHMARK = {
    "moco_v2_resnet50": 2048,
    "swav_resnet50": 2048,
    "barlow_twins_resnet50": 2048,
    "dino_vit_small_patch16": 384,
    "dino_vit_small_patch8": 384,
}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    for index in range(8):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((512, 512)).save(folder / f"{index}.png")
    return folder


def one_update(name: str, tiles: Path, out: Path, batch_size: int) -> Path:
    recipe = recipes.load(name)
    return pretrain_encoder(
        replace(recipe, data=(tiles,), out=out, batch_size=batch_size, tiles_seen=batch_size)
    )


def check(name: str, out: Path, folder: Path) -> None:
    (line,) = read_log(out / "log.jsonl")
    assert np.isfinite(line["loss"]) and line["skipped"] == 0
    assert line["grad_norm"] > 0
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert model.num_features == BENCHMARK[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BENCHMARK))
def test_an_update_runs_on_a_cpu(name: str, tiles: Path, tmp_path: Path) -> None:
    check(name, tmp_path / "run", one_update(name, tiles, tmp_path / "run", 4))


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(BENCHMARK))
def test_an_update_runs_on_a_gpu(name: str, tiles: Path, tmp_path: Path) -> None:
    assert torch.cuda.is_available()
    check(name, tmp_path / "run", one_update(name, tiles, tmp_path / "run", 8))
