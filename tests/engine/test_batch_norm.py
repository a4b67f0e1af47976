"""BatchNorm over processes and over parts of a batch."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from eosin.engine import batch_norm, distributed
from eosin.errors import UsageError
from tests.ranks import run_on_ranks


def network() -> nn.Module:
    """Plain BatchNorm, timm's with an activation, and one without affine parameters."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        timm.layers.BatchNormAct2d(6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
        nn.BatchNorm1d(4, affine=False),
    ).double()


def images() -> Tensor:
    return torch.randn(8, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradients_and_statistics(ranks: int) -> dict[str, Tensor]:
    """Of one process's share of the images, the gradients' mean taken over the processes."""
    model = network()
    batch_norm.synchronise(model, ranks)
    size, rank = distributed.world_size(), distributed.rank()
    share = images().chunk(size)[rank]
    weights = torch.arange(4, dtype=torch.float64)
    (model(share).sin() * weights).sum(1).mean().backward()
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        found[name] = distributed.all_reduce(parameter.grad) / size
    found |= {name: value for name, value in model.named_buffers()}
    found["evaluated"] = model.eval()(images()).detach()
    return found


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_that_share_statistics_equal_one_process(world_size: int, tmp_path: Path) -> None:
    whole = gradients_and_statistics(0)
    for found in run_on_ranks(world_size, gradients_and_statistics, tmp_path, 0):
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=name)


def split_gradients(parts: int) -> dict[str, Tensor]:
    model = network()
    batch_norm.split(model, parts)
    weights = torch.arange(4, dtype=torch.float64)
    (model(images()).sin() * weights).sum(1).mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_groups_and_own_statistics_equal_a_split_batch(tmp_path: Path) -> None:
    for ranks, parts in ((2, 2), (1, 4)):
        found = run_on_ranks(4, gradients_and_statistics, tmp_path / str(ranks), ranks)[0]
        for name, value in split_gradients(parts).items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=name)


def test_a_copy_is_synchronised_too_and_keeps_its_names(tmp_path: Path) -> None:
    assert run_on_ranks(2, _copied_equals, tmp_path) == [True, True]


def _copied_equals() -> bool:
    import copy

    model = network()
    names = list(model.state_dict())
    batch_norm.synchronise(model)
    twin = copy.deepcopy(model)
    share = images().chunk(2)[distributed.rank()]
    return torch.equal(model(share), twin(share)) and list(twin.state_dict()) == names


def test_uneven_groups_and_parts_are_refused(tmp_path: Path) -> None:
    assert run_on_ranks(3, _refused, tmp_path) == [True] * 3
    model = network()
    batch_norm.split(model, 3)
    with pytest.raises(UsageError, match="8 views into 3"):
        model(images())


def _refused() -> bool:
    try:
        batch_norm.synchronise(network(), 2)
    except UsageError as error:
        return "does not divide the 3" in str(error)
    return False
