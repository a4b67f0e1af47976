"""Barlow Twins' loss with its gradient, against lightly's, at the paper's width.

    python -m bench.loss_barlow --json

Both sides get the same float32 projections and compute loss and gradient. Before anything is timed,
both are compared: equal losses and gradients, or the benchmark fails.
"""

from importlib.metadata import version

import torch
from lightly.loss import BarlowTwinsLoss

from bench import _memory
from bench._compare import Contestant, arguments, compare, show
from eosin.methods._cross_correlation import barlow_twins_loss

LAMBDA = 0.005  # lightly's default; the paper's is 0.0051


def make_projections(
    batch: int, dim: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two correlated float32 batches [batch, dim] that want a gradient."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(batch, dim, generator=generator)
    second = 0.7 * first + 0.7 * torch.randn(batch, dim, generator=generator)
    return first.to(device).requires_grad_(), second.to(device).requires_grad_()


def run_ours(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Our loss; its gradient is left in the projections."""
    first.grad = second.grad = None
    loss = barlow_twins_loss(first, second, LAMBDA).total
    loss.backward()
    return loss.detach()


def run_lightly(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Lightly's loss; its gradient is left in the projections."""
    first.grad = second.grad = None
    loss = BarlowTwinsLoss(lambda_param=LAMBDA)(first, second)
    loss.backward()
    return loss.detach()


def gradients(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """What the last loss left in the projections, [2, batch, dim]."""
    assert first.grad is not None and second.grad is not None
    return torch.stack([first.grad, second.grad])


def check_equal(first: torch.Tensor, second: torch.Tensor) -> None:
    """Fails where the two sides do not compute the same, to 1e-5 of loss and gradient."""
    ours = run_ours(first, second)
    gradient = gradients(first, second)
    theirs = run_lightly(first, second)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    expected = gradients(first, second)
    error = float((gradient - expected).norm() / expected.norm())
    assert error < 1e-5, f"the gradients differ by {error:.1e} of their norm"
    print(f"equal: loss {float(ours):.4f}, gradients differ by {error:.0e} of their norm")


def extra_memory_mb(side: str, batch: int, dim: int) -> float:
    """Greatest resident memory that one loss with gradient adds."""
    setup = f"""
from bench import loss_barlow as bench
bench.run_{side}(*bench.make_projections(16, 64, torch.device("cpu")))
projections = bench.make_projections({batch}, {dim}, torch.device("cpu"))
"""
    return _memory.extra_memory_mb(setup, f"bench.run_{side}(*projections)")


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dim", type=int, default=8192)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    first, second = make_projections(options.batch, options.dim, device)
    check_equal(first, second)
    line = compare(
        "loss_barlow",
        Contestant("eosin", lambda: run_ours(first, second)),
        Contestant(f"lightly {version('lightly')}", lambda: run_lightly(first, second)),
        rounds=options.rounds,
        device=device,
    )
    line |= {"batch": options.batch, "dim": options.dim}
    if device.type == "cpu":
        for side in ("ours", "lightly"):
            line[f"{side}_extra_mb"] = extra_memory_mb(side, options.batch, options.dim)
        ours_mb, lightly_mb = line["ours_extra_mb"], line["lightly_extra_mb"]
        print(f"extra memory: {ours_mb:.0f} MB, lightly {lightly_mb:.0f} MB")
    show([line], as_json=options.json)


if __name__ == "__main__":
    main()
