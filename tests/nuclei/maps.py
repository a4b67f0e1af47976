"""Maps as a network would give them of nuclei that touch, for the tests of what follows it."""

import cv2
import numpy as np

from eosin.nuclei.targets import make_targets


def touching_nuclei(side: int, seed: int = 0, spacing: float = 15, radius: float = 9):
    """Discs about shaken places of a grid, cut where two meet: instances and types of three."""
    generator = np.random.default_rng(seed)
    across = max(int(side / spacing), 1)
    middles = np.stack(np.meshgrid(np.arange(across), np.arange(across)), -1).reshape(-1, 2)
    middles = (middles + 0.5) * spacing + generator.uniform(-2.5, 2.5, middles.shape)
    middles = middles[generator.random(len(middles)) < 0.85]
    y, x = np.mgrid[:side, :side]
    nearest = np.full((side, side), np.inf)
    instances = np.zeros((side, side), np.int32)
    for number, (across_x, down_y) in enumerate(middles, 1):
        distance = np.hypot(y - down_y, x - across_x) / generator.uniform(0.8, 1.1)
        closer = (distance < nearest) & (distance < radius)
        nearest[closer], instances[closer] = distance[closer], number
    kept = np.flatnonzero(np.bincount(instances.ravel())[1:] >= 60) + 1
    numbers = np.zeros(len(middles) + 1, np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[instances], generator.integers(0, 3, len(kept))


def maps_of(instances, types, noise: float = 0.0, seed: int = 0):
    """Foreground, distances and scores of three types, with smooth noise of this much."""
    generator = np.random.default_rng(seed)
    targets = make_targets(instances, types, len(instances))

    def shaken(values):
        drawn = generator.normal(0, 1, values.shape).astype(np.float32)
        return (values + noise * cv2.GaussianBlur(drawn, (0, 0), 1.5) * 4).astype(np.float32)

    foreground = shaken(targets.foreground * 0.9 + 0.05).clip(0, 1)
    hv = np.stack([shaken(each) for each in targets.hv])
    scores = np.stack([shaken((targets.types == place) * 1.0) for place in range(4)])
    return foreground, hv, scores


def same_partition(one, other) -> bool:
    """Whether two instance maps differ in their numbers alone."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return bool(
        ((one > 0) == (other > 0)).all()
        and len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    )
