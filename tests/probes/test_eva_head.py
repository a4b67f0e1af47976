from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from eosin.probes._base import Material
from eosin.probes.eva_head import EvaHead
from tests.probes._material import material, samples
from tests.probes._reference import Layer, uniform_layers

SEED = 3


@dataclass
class Run:
    """What a run by eva's schedule leaves."""

    last: Layer
    best: Layer
    best_score: float = -1.0
    best_epoch: int = 0
    updates: int = 0


def published(given: Material, updates: int) -> Run:
    """Trains and watches as eva's files and Lightning say, in float64."""
    train, count = given.train, len(given.train)
    generator = np.random.default_rng(SEED)
    (layer,) = uniform_layers(generator, 1, 1 if given.n_classes == 2 else given.n_classes, 8)
    run = Run(last=layer, best=layer)
    patience = np.ceil(0.2 * updates / np.ceil(count / 256))
    epoch = 0
    while True:
        order = generator.permutation(count)
        for start in range(0, count, 256):
            if run.updates == updates:
                return run
            batch = order[start : start + 256]
            rate = 3e-4 * (1 / 3 if epoch < 5 else 1)
            gradients = layer.gradients(train.features[batch], train.labels[batch])
            layer.adam(gradients, rate, 0.0, 0.01)
            run.updates += 1
        epoch += 1
        if given.folds:
            judged = given.folds[0].held_out
            predicted = layer.probabilities(judged.features).argmax(1)
            score = balanced_accuracy_score(judged.labels, predicted)
            if score > run.best_score:
                run.best, run.best_score, run.best_epoch = Layer(*layer.parameters), score, epoch
            if epoch - run.best_epoch >= patience:
                return run


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("updates", [1, 2, 3, 4, 300])
def test_updates_are_those_of_eva(classes: int, updates: int) -> None:
    # 600 samples are 3 batches, of which the last has 88.
    given = material(600, classes)
    queries = samples(50, classes, 8, 2).features
    found = EvaHead(updates=updates).fit(given, SEED).predict(queries)
    expected = published(given, updates).last.probabilities(queries)
    assert found == pytest.approx(expected, abs=1e-6 if updates < 5 else 1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize("updates", [14, 15, 16, 17, 18])
def test_the_learning_rate_rises_after_five_epochs(updates: int) -> None:
    given = material(600, 3)
    queries = samples(50, 3, 8, 2).features
    expected = published(given, updates).last.probabilities(queries)
    found = EvaHead(updates=updates).fit(given, SEED).predict(queries)
    assert found == pytest.approx(expected, abs=1e-6)
    later = EvaHead(updates=updates, warm_up_epochs=6).fit(given, SEED).predict(queries)
    assert (np.abs(later - expected).max() > 1e-5) == (updates > 15)


@pytest.mark.parametrize(
    ("count", "classes", "updates"), [(600, 2, 60), (600, 4, 200), (100, 3, 40), (300, 3, 7)]
)
def test_the_best_epoch_is_taken_and_training_ends_as_in_eva(
    count: int, classes: int, updates: int
) -> None:
    given = material(count, classes, held_out=90, spread=2.0)
    queries = samples(50, classes, 8, 2).features
    fitted = EvaHead(updates=updates).fit(given, SEED)
    run = published(given, updates)
    assert fitted.chosen["epoch"] == run.best_epoch
    assert fitted.chosen["balanced_accuracy"] == pytest.approx(run.best_score, abs=1e-6)
    assert fitted.chosen["updates"] == run.updates
    assert fitted.predict(queries) == pytest.approx(run.best.probabilities(queries), abs=1e-5)


def test_patience_is_that_of_eva_s_files() -> None:
    head = EvaHead()
    counts = {"bach": 268, "crc": 100_000, "mhist": 2_175, "patch_camelyon": 262_144}
    patience = {name: head.patience_in_epochs(count) for name, count in counts.items()}
    assert patience == {"bach": 1250, "crc": 7, "mhist": 278, "patch_camelyon": 3}


def test_it_is_what_pytorch_s_parts_give() -> None:
    given = material(600, 3)
    generator = np.random.default_rng(SEED)
    drawn = generator.uniform(-1 / np.sqrt(8), 1 / np.sqrt(8), 27).astype(np.float32)
    layer = torch.nn.Linear(8, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(drawn[:24].reshape(3, 8)))
        layer.bias.copy_(torch.from_numpy(drawn[24:]))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=3e-4)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    for _ in range(8):
        order = generator.permutation(600)
        for start in range(0, 600, 256):
            batch = order[start : start + 256]
            features = torch.from_numpy(given.train.features[batch])
            labels = torch.from_numpy(given.train.labels[batch])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(features), labels).backward()
            optimizer.step()
        schedule.step()
    queries = samples(50, 3, 8, 2).features
    expected = layer(torch.from_numpy(queries)).softmax(1).detach().numpy()
    assert EvaHead(updates=24).fit(given, SEED).predict(queries) == pytest.approx(
        expected, abs=1e-6
    )


def test_another_seed_gives_another_head_and_the_same_seed_the_same() -> None:
    given = material(300, 3, held_out=60)
    queries = samples(50, 3, 8, 2).features
    first, second, other = (EvaHead(updates=20).fit(given, seed) for seed in (0, 0, 1))
    assert (first.predict(queries) == second.predict(queries)).all()
    assert (first.predict(queries) != other.predict(queries)).any()


def test_a_class_that_is_predicted_and_does_not_occur_counts_as_missed() -> None:
    given = material(300, 3, held_out=60)
    fold = given.folds[0]
    few = fold.held_out.labels < 2
    held_out = type(fold.held_out)(
        features=fold.held_out.features[few] * 0 + fold.held_out.features[2],
        labels=fold.held_out.labels[few],
        groups=fold.held_out.groups[few],
        ids=(),
    )
    odd = type(given)(
        train=given.train,
        folds=(type(fold)(fit=fold.fit, held_out=held_out),),
        n_classes=3,
    )
    fitted = EvaHead(updates=400).fit(odd, 0)
    # Each epoch gives all of them one class: a third where it occurs, else none of two.
    assert fitted.chosen["balanced_accuracy"] in (0.0, 0.5, pytest.approx(1 / 3))
