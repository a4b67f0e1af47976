"""The loss against an independent float64 rendition, and on which axis it differentiates."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from eosin.nuclei.hovernet import Outputs
from eosin.nuclei.loss import LossWeights, Truth, derivatives, hovernet_loss
from tests.ranks import run_on_ranks

TERMS = [each.name for each in fields(LossWeights) if each.name != "official_axis"]


def batch(seed: int, count: int = 4, px: int = 12) -> tuple[Outputs, Truth]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    foreground = (normal(count, px, px) > 0.3).long()
    types = foreground * torch.randint(1, 4, (count, px, px), generator=generator)
    outputs = Outputs(normal(count, 2, px, px), normal(count, 2, px, px), normal(count, 4, px, px))
    return outputs, Truth(foreground=foreground, hv=normal(count, 2, px, px), types=types)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def rendition(outputs: Outputs, truth: Truth, swapped: bool) -> dict[str, float]:
    """The published formulas, pixel by pixel."""
    found: dict[str, float] = {}
    for name, logits, classes in (
        ("foreground", outputs.foreground, truth.foreground),
        ("types", outputs.types, truth.types),
    ):
        probability, classes = softmax(logits.numpy()), classes.numpy()
        true = np.eye(probability.shape[1])[classes].transpose(0, 3, 1, 2)
        found[f"{name}_ce"] = float(-(true * np.log(probability)).sum(1).mean())
        dice = 0.0
        for channel in range(probability.shape[1]):
            p, t = probability[:, channel], true[:, channel]
            dice += 1 - (2 * (p * t).sum() + 1e-3) / (p.sum() + t.sum() + 1e-3)
        found[f"{name}_dice"] = float(dice)
    error = (outputs.hv - truth.hv).numpy()
    found["hv_mse"] = float((error**2).mean())
    count, _, height, width = error.shape
    padded = np.pad(error, ((0, 0), (0, 0), (2, 2), (2, 2)))
    squared = below = 0.0
    for image, y, x in np.ndindex(count, height, width):
        if not truth.foreground[image, y, x]:
            continue
        for channel in (0, 1):
            total = 0.0
            for v in range(-2, 3):
                for h in range(-2, 3):
                    along = (h, v)[(channel == 1) != swapped]
                    value = padded[image, channel, y + 2 + v, x + 2 + h]
                    total += along / (h * h + v * v + 1e-15) * value
            squared += total**2
            below += 1
    found["hv_msge"] = squared / (below + 1e-8)
    return found


@pytest.mark.parametrize("swapped", [False, True])
def test_every_term_is_that_of_the_rendition(swapped: bool) -> None:
    outputs, truth = batch(0)
    weights = LossWeights(official_axis=swapped, hv_mse=2.0, types_dice=0.5)
    loss = hovernet_loss(outputs, truth, weights)
    expected = rendition(outputs, truth, swapped)
    assert loss.parts.keys() == set(TERMS)
    for name, value in expected.items():
        assert float(loss.parts[name]) == pytest.approx(value, rel=1e-9), name
    total = sum(getattr(weights, name) * value for name, value in expected.items())
    assert float(loss.total) == pytest.approx(total, rel=1e-9)


def test_an_error_along_its_own_axis_costs() -> None:
    ramp = torch.zeros(1, 2, 16, 16)
    ramp[0, 0] = torch.linspace(0, 1, 16)  # the horizontal map, wrong along x
    inner = (slice(None), slice(None), slice(4, 12), slice(4, 12))
    assert derivatives(ramp)[inner][:, 0].abs().min() > 0.1
    assert derivatives(ramp, official_axis=True)[inner][:, 0].abs().max() < 1e-6
    upright = ramp.flip(1).transpose(2, 3)  # the vertical map, wrong along y
    assert torch.allclose(derivatives(upright)[inner][:, 1].mT, derivatives(ramp)[inner][:, 0])


def test_a_perfect_prediction_costs_next_to_nothing() -> None:
    _, truth = batch(1)
    certain = [
        20.0 * torch.nn.functional.one_hot(classes, channels).movedim(-1, 1).double()
        for classes, channels in ((truth.foreground, 2), (truth.types, 4))
    ]
    loss = hovernet_loss(Outputs(certain[0], truth.hv, certain[1]), truth, LossWeights())
    assert float(loss.total) < 1e-4


def test_an_image_without_nuclei_has_a_loss() -> None:
    outputs, truth = batch(2, count=1)
    empty = replace(truth, foreground=truth.foreground * 0, types=truth.types * 0)
    loss = hovernet_loss(outputs, empty, LossWeights())
    assert torch.isfinite(loss.total) and float(loss.parts["hv_msge"]) == 0.0


def _gradients(share: int) -> list[np.ndarray]:
    from eosin.engine import distributed

    outputs, truth = batch(3)
    rows = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    leaves = [each[rows].clone().requires_grad_(True) for each in outputs]
    own = Truth(foreground=truth.foreground[rows], hv=truth.hv[rows], types=truth.types[rows])
    loss = hovernet_loss(Outputs(*leaves), own, LossWeights())
    loss.total.backward()
    # The engine takes the mean over the processes.
    return [leaf.grad.numpy() / distributed.world_size() for leaf in leaves]


def test_two_processes_give_the_gradient_of_one(tmp_path) -> None:
    (alone,) = run_on_ranks(1, _gradients, tmp_path / "1", 4)
    both = run_on_ranks(2, _gradients, tmp_path / "2", 2)
    for whole, first, second in zip(alone, *both, strict=True):
        assert np.allclose(whole, np.concatenate([first, second]), rtol=1e-10, atol=1e-15)
