"""The monitor measures what it says and names a collapse."""

import math

import pytest
import torch

from eosin.encoders import build_encoder
from eosin.methods._base import Plan
from eosin.methods.barlow_twins import BarlowTwins, Config
from eosin.pretrain.monitor import CollapseMonitor, diagnose, embedding_std, rankme


def test_rankme_counts_equal_directions() -> None:
    assert rankme(torch.eye(6)) == pytest.approx(6, rel=1e-3)
    assert rankme(torch.ones(6, 6)) == pytest.approx(1, rel=1e-3)


def test_embedding_std_is_one_for_spread_and_zero_for_equal_directions() -> None:
    spread = torch.randn(5000, 16, generator=torch.Generator().manual_seed(0))
    assert embedding_std(spread) == pytest.approx(1, rel=0.02)
    assert embedding_std(torch.ones(8, 16)) == pytest.approx(0, abs=1e-6)


def test_a_collapse_is_named_with_its_mend() -> None:
    assert diagnose(1.0, 3.0, None) == ""
    assert diagnose(1.0, 3.0, math.log(4096)) == ""
    assert "8.318" in diagnose(1.0, math.log(4096), math.log(4096))
    assert "learning rate" in diagnose(0.01, 3.0, None)


def test_it_warns_once_and_restores_the_modes(capsys: pytest.CaptureFixture[str]) -> None:
    encoder = build_encoder("resnet10t", input_px=32, seed=0)
    plan = Plan(batch_size=4, updates=10, updates_per_epoch=5)
    method = BarlowTwins(Config(projector=(8, 8)), encoder, plan).train()
    encoder.model.layer1.eval()  # pyright: ignore[reportCallIssue]
    modes = [module.training for module in method.modules()]
    before = encoder.weights_sha256()
    same = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    monitor = CollapseMonitor(method, same, updates=10)
    assert monitor(1, 3.0)["embedding_std"] < 0.05
    assert capsys.readouterr().err == ""  # too early to judge
    for update in (5, 6):
        monitor(update, 3.0)
    assert capsys.readouterr().err.count("collapsed") == 1
    assert [module.training for module in method.modules()] == modes
    assert encoder.weights_sha256() == before
