"""One update of HoVer-Net at its full width, on the encoders of the paper."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eosin.encoders import build_encoder
from eosin.engine.log import read_log
from eosin.nuclei.settings import Phase
from eosin.nuclei.training import Setup, train_hovernet
from eosin.protocols.strict import NUCLEI
from tests.nuclei.discs import images

ENCODERS = ("resnet50", "vit_small_patch16", "vit_small_patch8")


def check(name: str, device: torch.device, folder: Path, batch: int) -> None:
    phases = tuple(
        Phase(epochs=0, batch_size=batch, is_frozen=is_frozen, min_updates=1)
        for is_frozen in (True, False)
    )
    setup = Setup(
        encoder=build_encoder(name, input_px=NUCLEI.input_px, seed=0).eval(),
        images=images("train", batch, side=300),
        chosen=np.arange(batch),
        training=replace(NUCLEI, phases=phases),
        precision="auto",
        seed=0,
        device=device,
    )
    trained = train_hovernet(setup, None, folder)
    for number in (1, 2):
        (line,) = read_log(folder / f"phase-{number}" / "log.jsonl")
        assert np.isfinite(line["loss"]) and line["grad_norm"] > 0 and line["skipped"] == 0
    assert not trained.network.training


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_an_update_runs_on_a_cpu(name: str, tmp_path: Path) -> None:
    check(name, torch.device("cpu"), tmp_path, 1)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ENCODERS)
def test_an_update_runs_on_a_gpu(name: str, tmp_path: Path) -> None:
    assert torch.cuda.is_available()
    check(name, torch.device("cuda"), tmp_path, 4)
