import numpy as np
import pytest
from hypothesis import given as each_of
from hypothesis import settings
from hypothesis import strategies as st

from eosin.errors import InputError
from eosin.probes import prototypes
from eosin.probes.prototypes import draw_support, predict_episodes
from tests.probes._material import samples


def plainly(features: np.ndarray, support: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """SimpleShot of one episode, in float64: cosines of centred class means and queries."""
    drawn = features[support].astype(np.float64)
    centre = drawn.reshape(-1, drawn.shape[-1]).mean(0)
    means = (drawn - centre).mean(1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    centred = queries - centre
    return (centred / np.linalg.norm(centred, axis=1, keepdims=True) @ means.T).argmax(1)


@pytest.mark.parametrize("shots", [1, 4])
@pytest.mark.parametrize("at_once", [1, 2**24])
def test_classes_are_those_of_the_nearest_class_mean(
    monkeypatch: pytest.MonkeyPatch, shots: int, at_once: int
) -> None:
    monkeypatch.setattr(prototypes, "_COSINES_AT_ONCE", at_once)
    train, test = samples(90, 3, 8, 0), samples(50, 3, 8, 1)
    support = draw_support(train.labels, 3, shots, 20, 0)
    found = np.concatenate(list(predict_episodes(train.features, support, test.features)))
    expected = [plainly(train.features, each, test.features) for each in support]
    assert (found == np.array(expected)).all()


@settings(deadline=None, max_examples=30)
@each_of(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_support_is_of_every_class_and_nothing_twice(
    classes: int, shots: int, episodes: int, seed: int
) -> None:
    labels = np.arange(40) % classes
    support = draw_support(labels, classes, shots, episodes, seed)
    assert support.shape == (episodes, classes, shots)
    for episode in support:
        assert (labels[episode] == np.arange(classes)[:, None]).all()
        assert len(np.unique(episode)) == classes * shots
    again = draw_support(labels, classes, shots, episodes + 1, seed)
    assert (again[:episodes] == support).all()


def test_episodes_differ_and_every_sample_is_drawn_alike_often() -> None:
    labels = np.arange(30) % 3
    support = draw_support(labels, 3, 2, 2000, 0)
    counts = np.bincount(support.ravel(), minlength=30)
    assert counts == pytest.approx(np.full(30, 400), rel=0.25)
    assert len({episode.tobytes() for episode in support}) > 1900


def test_too_few_images_of_a_class_are_refused() -> None:
    with pytest.raises(InputError, match=r"16 shots need 16 .* one class has 3"):
        draw_support(np.array([0, 0, 0, 1, 1, 1, 1]), 2, 16, 5, 0)
