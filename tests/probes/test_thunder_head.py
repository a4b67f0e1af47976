import numpy as np
import pytest
from sklearn.metrics import f1_score

from eosin.probes.thunder_head import ThunderHead
from tests.probes._material import material, samples
from tests.probes._reference import Layer, uniform_layers

SEED = 5
GRID = [(rate, decay) for rate in (1e-3, 1e-4, 1e-5) for decay in (0.0, 1e-3, 1e-4)]


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("epochs", [1, 2, 12])
def test_the_head_is_that_of_thunder_s_schedule(classes: int, epochs: int) -> None:
    given = material(150, classes, held_out=80, spread=2.0)
    train, judged = given.folds[0].fit, given.folds[0].held_out
    queries = samples(50, classes, 8, 2).features
    generator = np.random.default_rng(SEED)
    layers = uniform_layers(generator, 9, classes, 8)
    best, best_score, choice = layers[0], -1.0, (0.0, 0.0, 0)
    for epoch in range(epochs):
        order = generator.permutation(150)
        for start in range(0, 150, 64):
            batch = order[start : start + 64]
            for (rate, decay), layer in zip(GRID, layers, strict=True):
                gradients = layer.gradients(train.features[batch], train.labels[batch])
                layer.adam(gradients, rate, decay, 0.0)
        for (rate, decay), layer in zip(GRID, layers, strict=True):
            predicted = layer.probabilities(judged.features).argmax(1)
            score = f1_score(judged.labels, predicted, average="macro", zero_division=0)
            if score > best_score:
                best, best_score, choice = Layer(*layer.parameters), score, (rate, decay, epoch + 1)
    fitted = ThunderHead(epochs=epochs).fit(given, SEED)
    assert fitted.chosen["macro_f1"] == pytest.approx(best_score)
    chosen = tuple(fitted.chosen[name] for name in ("learning_rate", "weight_decay", "epoch"))
    assert chosen == choice
    assert fitted.predict(queries) == pytest.approx(best.probabilities(queries), abs=2e-6)


def test_decay_is_part_of_the_gradient() -> None:
    given = material(150, 3, held_out=80)
    queries = samples(50, 3, 8, 2).features
    generator = np.random.default_rng(SEED)
    (layer,) = uniform_layers(generator, 1, 3, 8)
    for _ in range(4):
        order = generator.permutation(150)
        for start in range(0, 150, 64):
            batch = order[start : start + 64]
            gradients = layer.gradients(given.train.features[batch], given.train.labels[batch])
            layer.adam(gradients, 1e-2, 0.5, 0.0)
    head = ThunderHead(learning_rates=(1e-2,), weight_decays=(0.5,), epochs=4)
    fitted = head.fit(given, SEED)
    if fitted.chosen["epoch"] == 4:
        assert fitted.predict(queries) == pytest.approx(layer.probabilities(queries), abs=1e-5)
    else:
        assert np.abs(fitted.predict(queries) - layer.probabilities(queries)).max() > 1e-4


def test_the_best_head_does_not_go_on_training() -> None:
    given = material(150, 3, held_out=80, spread=3.0)
    queries = samples(50, 3, 8, 2).features
    long = ThunderHead(learning_rates=(0.1,), epochs=20).fit(given, SEED)
    short = ThunderHead(learning_rates=(0.1,), epochs=long.chosen["epoch"]).fit(given, SEED)
    assert long.chosen["epoch"] < 20
    assert (long.predict(queries) == short.predict(queries)).all()
