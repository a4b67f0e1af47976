import numpy as np

from eosin.probes._base import Fold, Material, Samples


def samples(count: int, classes: int, dim: int, seed: int, spread: float = 1.0) -> Samples:
    """Overlapping classes around centres that do not depend on the seed."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    features = centres[labels] + spread * generator.normal(size=(count, dim))
    return Samples(
        features=features.astype(np.float32),
        labels=labels,
        groups=np.arange(count).astype(str),
        ids=(),
    )


def material(
    count: int, classes: int, dim: int = 8, held_out: int = 0, spread: float = 1.0
) -> Material:
    train = samples(count, classes, dim, 0, spread)
    folds = ()
    if held_out:
        folds = (Fold(fit=train, held_out=samples(held_out, classes, dim, 1, spread)),)
    return Material(train=train, folds=folds, n_classes=classes)
