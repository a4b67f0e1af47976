from dataclasses import replace

import numpy as np
import pytest

from eosin.errors import InputError
from eosin.protocols._base import FewShot, find_protocol
from eosin.tasks import few_shot
from eosin.tasks._base import Job
from tests.tasks.blobs import blobs, embed, inputs_of

PROTOCOL = replace(find_protocol("strict"), few_shot=FewShot(shots=(1, 4, 64), episodes=50))
JOB = Job(task="few_shot", protocol=PROTOCOL)


def test_the_mean_over_the_draws_and_their_spread() -> None:
    embedded = embed(train=blobs(120, 0, spread=2.0))
    rows = few_shot.run(JOB, inputs_of(embedded))
    clean = {row.task: (row, predictions) for row, predictions in rows if row.data.shift == "none"}
    # 40 images a class are too few for 64 shots.
    assert list(clean) == ["few_shot_1", "few_shot_4"]
    scores = {}
    for name, (row, predictions) in clean.items():
        labels = predictions.label
        expected = predictions.scores[np.arange(len(labels)), labels].mean()
        assert row.metrics["accuracy"].value == pytest.approx(expected)
        assert row.metrics.keys() == {"accuracy", "balanced_accuracy"}
        assert (row.episodes, predictions.is_share) == (50, True)
        spread = row.selection["balanced_accuracy_percentiles"]
        assert spread["5"] < row.metrics["balanced_accuracy"].value < spread["95"]
        scores[name] = row.metrics["accuracy"].value
    assert scores["few_shot_4"] > scores["few_shot_1"] > 0.34


def test_one_draw_is_what_class_means_say() -> None:
    embedded = embed()
    once = replace(JOB, protocol=replace(PROTOCOL, few_shot=FewShot(shots=(40,), episodes=1)))
    row, predictions = few_shot.run(once, inputs_of(embedded))[0]
    features, labels = embedded.train.embeddings, embedded.train.images.labels
    means = np.stack([features[labels == each].mean(0) for each in range(3)])
    centre = means.mean(0)
    units = (means - centre) / np.linalg.norm(means - centre, axis=1, keepdims=True)
    expected = ((embedded.tests["none"].embeddings - centre) @ units.T).argmax(1)
    assert np.array_equal(predictions.predicted, expected)
    assert row.selection["n_fit"] == 120


def test_seeds_draw_anew_and_the_same_seed_alike() -> None:
    embedded = embed(train=blobs(120, 0, spread=2.0))
    first, again, other = (
        few_shot.run(replace(JOB, seed=seed), inputs_of(embedded))[0][1].scores
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_class_without_labels_is_refused() -> None:
    train = blobs(120, 0)
    labels = np.where(train.images.labels == 2, 1, train.images.labels)
    lacking = replace(train, images=replace(train.images, labels=labels))
    with pytest.raises(InputError, match="blobs: a class has 0 labelled"):
        few_shot.run(JOB, inputs_of(embed(train=lacking)))
