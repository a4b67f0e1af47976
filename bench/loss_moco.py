"""MoCo's loss with its gradient and its queue, against lightly's, at the paper's size.

    python -m bench.loss_moco --json

Both sides get the same float32 projections of queries and keys and the same queue; both normalise,
compute loss and gradient, and put the keys into the queue. Before anything is timed, both are
compared: equal losses and gradients and equal queues, or the benchmark fails.
"""

from importlib.metadata import version

import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from torch import nn

from bench import _memory
from bench._compare import Contestant, arguments, compare, show
from eosin.encoders import Encoder, EncoderCard
from eosin.methods._base import Plan
from eosin.methods._contrast import info_nce
from eosin.methods.moco_v2 import Config, MoCoV2

TEMPERATURE = 0.2


class Ours:
    """Our loss, and the queue of a MoCo around an encoder that is not used."""

    def __init__(self, queue: torch.Tensor, batch: int) -> None:
        length, dim = queue.shape
        no_model = nn.Linear(1, 1)
        no_model.num_features = 1
        encoder = Encoder(no_model, EncoderCard(name="none", architecture="none"))
        plan = Plan(batch_size=batch, updates=1, updates_per_epoch=1)
        self.method = MoCoV2(Config(queue=length, dim=dim), encoder, plan).to(queue.device)
        self.method.queue.copy_(queue)

    def run(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """The loss; its gradient is left in the queries."""
        queries.grad = None
        keys = F.normalize(keys, dim=1)
        loss = info_nce(F.normalize(queries, dim=1), keys, self.method.queue, TEMPERATURE).total
        loss.backward()
        self.method._keys = keys.view(1, 1, *keys.shape)  # what `before_forward` leaves
        self.method.after_update(0)
        return loss.detach()

    @property
    def queue(self) -> torch.Tensor:
        """Unit vectors [K, D]."""
        return self.method.queue


class Lightly:
    """Lightly's loss, which enqueues by itself."""

    def __init__(self, queue: torch.Tensor, batch: int) -> None:
        self.loss = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=tuple(queue.shape))
        self.loss.to(queue.device)
        self.loss.memory_bank.bank.copy_(queue)

    def run(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """The loss; its gradient is left in the queries."""
        queries.grad = None
        loss = self.loss(queries, keys)
        loss.backward()
        return loss.detach()

    @property
    def queue(self) -> torch.Tensor:
        """Unit vectors [K, D]."""
        return self.loss.memory_bank.bank


SIDES = {"ours": Ours, "lightly": Lightly}


def make_input(
    batch: int, dim: int, length: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries [batch, dim] that want a gradient, keys near them, and a queue [length, dim]."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(batch, dim, generator=generator)
    keys = queries + torch.randn(batch, dim, generator=generator)
    queue = F.normalize(torch.randn(length, dim, generator=generator), dim=1)
    return queries.to(device).requires_grad_(), keys.to(device), queue.to(device)


def check_equal(queries: torch.Tensor, keys: torch.Tensor, queue: torch.Tensor) -> None:
    """Fails where the two sides do not compute the same, in two updates."""
    ours, theirs = Ours(queue, len(queries)), Lightly(queue, len(queries))
    error = loss = 0.0
    for _ in range(2):
        our_loss = ours.run(queries, keys)
        gradient = queries.grad.clone()
        torch.testing.assert_close(our_loss, theirs.run(queries, keys), rtol=1e-5, atol=0)
        error = max(error, float((gradient - queries.grad).norm() / queries.grad.norm()))
        loss = float(our_loss)
    assert error < 1e-5, f"the gradients differ by {error:.1e} of their norm"
    torch.testing.assert_close(ours.queue, theirs.queue, rtol=1e-6, atol=1e-7)
    assert not torch.equal(ours.queue, queue), "nothing was enqueued"
    print(f"equal: loss {loss:.4f}, gradients differ by {error:.0e} of their norm, queues equal")


def extra_memory_mb(side: str, batch: int, dim: int, length: int) -> float:
    """Greatest resident memory that one loss with gradient adds."""
    setup = f"""
from bench import loss_moco as bench

def prepared(batch, dim, length):
    queries, keys, queue = bench.make_input(batch, dim, length, torch.device("cpu"))
    return bench.SIDES["{side}"](queue, batch), queries, keys

warm, queries, keys = prepared(16, 8, 64)
warm.run(queries, keys)
side, queries, keys = prepared({batch}, {dim}, {length})
"""
    return _memory.extra_memory_mb(setup, "side.run(queries, keys)")


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--queue", type=int, default=65536)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    queries, keys, queue = make_input(options.batch, options.dim, options.queue, device)
    check_equal(queries, keys, queue)
    ours, theirs = Ours(queue, options.batch), Lightly(queue, options.batch)
    line = compare(
        "loss_moco",
        Contestant("eosin", lambda: ours.run(queries, keys)),
        Contestant(f"lightly {version('lightly')}", lambda: theirs.run(queries, keys)),
        rounds=options.rounds,
        device=device,
    )
    line |= {"batch": options.batch, "dim": options.dim, "queue": options.queue}
    if device.type == "cpu":
        for side in SIDES:
            line[f"{side}_extra_mb"] = extra_memory_mb(
                side, options.batch, options.dim, options.queue
            )
        ours_mb, lightly_mb = line["ours_extra_mb"], line["lightly_extra_mb"]
        print(f"extra memory: {ours_mb:.0f} MB, lightly {lightly_mb:.0f} MB")
    show([line], as_json=options.json)


if __name__ == "__main__":
    main()
