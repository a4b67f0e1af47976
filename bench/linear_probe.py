"""Fitting a linear probe, against scikit-learn's lbfgs and against SGD with a DataLoader.

    python -m bench.linear_probe --json

Features are standardised float32 with a spectrum that falls as that of embeddings does, behind a
ReLU; the labels are a linear function of what they were made from, with noise. scikit-learn gets
the same matrix and its default tolerance; it must not have reached a lower loss, and the
accuracies on held-out samples must agree. The SGD probe is what frameworks run: a shuffled
`DataLoader`, batches of 256, autograd, momentum 0.9, a fixed penalty, 100 epochs. It is timed over
one epoch, and the time is multiplied by 100; `--all-epochs` trains it to its end for its accuracy.
"""

import time
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader, TensorDataset

from bench._compare import Contestant, arguments, as_line, measure, show
from eosin.probes.linear import LinearProbe, fit

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
SGD_EPOCHS = 100


def make_data(
    count: int, dim: int, classes: int, fitted: int, seed: int = 0
) -> tuple[Floats, Labels]:
    """Features [count, dim], standardised by the first `fitted` of them, and labels [count]."""
    generator = np.random.default_rng(seed)
    rank = np.arange(1, dim + 1, dtype=np.float32)
    rotation = np.linalg.qr(generator.standard_normal((dim, dim)))[0].astype(np.float32)
    teacher = generator.standard_normal((classes, dim), dtype=np.float32) * rank**-0.5
    teacher *= 6 / np.linalg.norm(teacher, axis=1, keepdims=True)
    latent = generator.standard_normal((count, dim), dtype=np.float32)
    noise = generator.gumbel(size=(count, classes))
    labels = (latent @ teacher.T + noise).argmax(1)
    latent *= rank**-0.7
    features = latent @ rotation
    del latent
    features += 0.3 * features[:1000].std()
    np.maximum(features, 0, out=features)
    features -= features[:fitted].mean(0, dtype=np.float64).astype(np.float32)
    features /= features[:fitted].std(0, dtype=np.float64).astype(np.float32)
    return features, labels


def objective(weights: Floats, bias: Floats, features: Floats, labels: Labels, c: float) -> float:
    """The penalised loss, divided by the number of samples, in float64 from the logits on."""
    total = 0.0
    for start in range(0, len(features), 4096):
        part = slice(start, start + 4096)
        logits = features[part].astype(np.float64) @ weights.T + bias
        logits -= logits.max(1, keepdims=True)
        own = logits[np.arange(len(logits)), labels[part]]
        total += float((np.log(np.exp(logits).sum(1)) - own).sum())
    squares = float((weights.astype(np.float64) ** 2).sum())
    return total / len(features) + squares / (2 * c * len(features))


class Sgd:
    """The probe of other frameworks: one epoch of it a call."""

    def __init__(self, features: Floats, labels: Labels, classes: int, c: float) -> None:
        data = TensorDataset(torch.from_numpy(features), torch.from_numpy(labels))
        self.loader = DataLoader(data, batch_size=256, shuffle=True)
        self.layer = torch.nn.Linear(features.shape[1], classes)
        decay = 1 / (c * len(features))
        self.optimizer = torch.optim.SGD(
            self.layer.parameters(), lr=0.01, momentum=0.9, weight_decay=decay
        )

    def epoch(self) -> None:
        """Goes through all samples once."""
        for features, labels in self.loader:
            self.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.layer(features), labels).backward()
            self.optimizer.step()

    def accuracy(self, features: Floats, labels: Labels) -> float:
        """Share of hits."""
        with torch.inference_mode():
            return float(
                (self.layer(torch.from_numpy(features)).argmax(1).numpy() == labels).mean()
            )


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument("--c", type=float, default=0.001, help="inverse strength of the penalty")
    parser.add_argument("--all-epochs", action="store_true", help="train the SGD probe to its end")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="`cpu` on a busy machine"
    )
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    torch.manual_seed(0)
    held_out = max(1000, options.count // 20)
    total = options.count + held_out
    features, labels = make_data(total, options.dim, options.classes, options.count)
    train, test = features[: options.count], features[options.count :]
    train_labels, test_labels = labels[: options.count], labels[options.count :]
    fitted: dict[str, Any] = {}
    fit(train[:4096], train_labels[:4096], options.classes, options.c)  # loads what is compiled
    sgd = Sgd(train, train_labels, options.classes, options.c)
    model = LogisticRegression(C=options.c, max_iter=1000)

    def ours() -> None:
        fitted["ours"] = fit(train, train_labels, options.classes, options.c)

    def sklearn() -> None:
        fitted["sklearn"] = model.fit(train, train_labels)

    names = ("eosin", f"scikit-learn {version('scikit-learn')} lbfgs", "SGD with a DataLoader")
    sides = [
        Contestant(name, run) for name, run in zip(names, (ours, sklearn, sgd.epoch), strict=True)
    ]
    times = measure(sides, rounds=options.rounds, clock=clock, warm_up=False)
    times[names[2]] = [SGD_EPOCHS * seconds for seconds in times[names[2]]]
    probe: LinearProbe = fitted["ours"]
    facts: dict[str, Any] = {
        "ours_loss": objective(probe.weights, probe.bias, train, train_labels, options.c),
        "sklearn_loss": objective(model.coef_, model.intercept_, train, train_labels, options.c),
        "ours_accuracy": float((probe.predict(test).argmax(1) == test_labels).mean()),
        "sklearn_accuracy": float(model.score(test, test_labels)),
        "sklearn_iterations": int(model.n_iter_.max()),
        "has_converged": probe.has_converged,
    }
    if options.all_epochs:
        for _ in range(SGD_EPOCHS - options.rounds):
            sgd.epoch()
        facts["sgd_accuracy"] = sgd.accuracy(test, test_labels)
    assert probe.has_converged
    assert facts["ours_loss"] <= facts["sklearn_loss"] * (1 + 1e-6), facts
    assert abs(facts["ours_accuracy"] - facts["sklearn_accuracy"]) < 0.005, facts
    print({name: f"{value:.8g}" for name, value in facts.items()})
    size = {"count": options.count, "dim": options.dim, "classes": options.classes}
    lines = [
        as_line(name, names[0], peer, times)
        | size
        | facts
        | {"c": options.c, "clock": options.clock}
        for name, peer in (("linear_probe", names[1]), ("linear_probe_sgd_100_epochs", names[2]))
    ]
    lines[1]["scaled"] = f"one epoch timed, multiplied by {SGD_EPOCHS}"
    show(lines, as_json=options.json)


if __name__ == "__main__":
    main()
