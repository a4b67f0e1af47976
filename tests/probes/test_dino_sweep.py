import numpy as np
import pytest

from eosin.probes._base import Material
from eosin.probes.dino_sweep import DinoSweep
from tests.probes._material import material, samples
from tests.probes._reference import Layer

SEED = 5


def published(given: Material, rates: tuple[float, ...], updates: int) -> list[Layer]:
    """DINOv2's heads, those of four learning rates at a time as they draw their weights."""
    train, count = given.train, len(given.train)
    layers = []
    for group in range(0, len(rates), 4):
        generator = np.random.default_rng([SEED, group // 4])
        shape = (len(rates[group : group + 4]), given.n_classes, 8)
        weights = generator.normal(0, 0.01, shape).astype(np.float32)
        layers += [Layer(each, np.zeros(given.n_classes)) for each in weights]
    generator = np.random.default_rng(SEED)
    passes = updates * 64 // count + 2
    stream = np.concatenate([generator.permutation(count) for _ in range(passes)])
    for update in range(updates):
        batch = stream[update * 64 : (update + 1) * 64]
        share = (1 + np.cos(np.pi * update / updates)) / 2
        for rate, layer in zip(rates, layers, strict=True):
            gradients = layer.gradients(train.features[batch], train.labels[batch])
            layer.momentum(gradients, rate * 64 / 256 * share)
    return layers


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("updates", [1, 2, 3, 40])
@pytest.mark.parametrize("rate", [1e-3, 0.1])
def test_updates_are_those_of_dinov2(classes: int, updates: int, rate: float) -> None:
    given = material(150, classes, held_out=60)
    queries = samples(50, classes, 8, 2).features
    (layer,) = published(given, (rate,), updates)
    fitted = DinoSweep(learning_rates=(rate,), updates=updates, batch_size=64).fit(given, SEED)
    assert fitted.predict(queries) == pytest.approx(layer.probabilities(queries), abs=2e-6)


def test_the_most_accurate_head_is_taken_and_of_equals_the_first() -> None:
    given = material(150, 4, held_out=60, spread=3.0)
    judged = given.folds[0].held_out
    rates = (1e-5, 1e-3, 1e-2, 0.1, 1.0, 1.0, 10.0)
    layers = published(given, rates, 30)
    predicted = [each.probabilities(judged.features).argmax(1) for each in layers]
    scores = [(each == judged.labels).mean() for each in predicted]
    fitted = DinoSweep(learning_rates=rates, updates=30, batch_size=64).fit(given, SEED)
    assert fitted.chosen["accuracy"] == pytest.approx(max(scores))
    assert fitted.chosen["learning_rate"] == rates[int(np.argmax(scores))]


def test_the_published_settings() -> None:
    head = DinoSweep()
    assert len(head.learning_rates) == 13
    assert (head.learning_rates[0], head.learning_rates[-1]) == (1e-5, 0.1)
    assert head.updates == 12_500
