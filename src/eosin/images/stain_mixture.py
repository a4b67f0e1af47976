"""A Gaussian mixture over the six channel statistics of images: three means, three deviations.

The statistics of an image depend on each other (a dark slide is dark in all channels, and has more
contrast), and those of several laboratories make clouds of their own. RandStainNA's independent
draws know neither; a draw from the mixture is a combination that images have had.
"""

import bisect
import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from eosin.errors import InputError
from eosin.progress import Bar

Array = npt.NDArray[np.float64]

SIX = 6
MOST_COMPONENTS = 8
IMAGES_PER_COMPONENT = 28
"""As many as a component has parameters: its weight, its means and its covariances."""

_STARTS = 4
_MOST_STEPS = 1000
# Added to the variances of standardised statistics, so that equal images make no point mass.
_LEAST_VARIANCE = 1e-4
_WEIGHT_ERROR = 1e-6
_COVARIANCE_ERROR = 1e-9


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A mixture of K Gaussians over the means and then the standard deviations of 3 channels.

    Raises:
        InputError: shapes do not fit, weights do not sum to 1, or a covariance is none.
    """

    weights: tuple[float, ...]
    """K, above 0."""
    means: tuple[tuple[float, ...], ...]
    """K x 6."""
    covariances: tuple[tuple[tuple[float, ...], ...], ...]
    """K x 6 x 6."""
    images: int
    """How many it was fitted to."""
    bic: tuple[float, ...]
    """Bayesian information criterion of 1, 2 and so on components; the least was chosen."""

    def __post_init__(self) -> None:
        components = len(self.weights)
        weights = array(self.weights, (components,), "weights")
        array(self.means, (components, SIX), "means")
        covariances = array(self.covariances, (components, SIX, SIX), "covariances")
        array(self.bic, (len(self.bic),), "bic")
        if components == 0 or weights.min() <= 0 or abs(weights.sum() - 1) > _WEIGHT_ERROR:
            raise InputError("weights must be above 0 and sum to 1")
        for covariance in covariances:
            allowed = _COVARIANCE_ERROR * max(float(np.abs(covariance).max()), 1e-300)
            if np.abs(covariance - covariance.T).max() > allowed:
                raise InputError("covariances must be symmetric")
            if np.linalg.eigvalsh(covariance).min() < -SIX * allowed:
                raise InputError("covariances must be positive semi-definite")

    def draw(self, rng: np.random.Generator) -> list[float]:
        """Draws the six statistics together, from one component; deviations may be below 0."""
        ends, means, roots = self._factors
        component = bisect.bisect(ends, rng.random())
        return (means[component] + roots[component].dot(rng.standard_normal(SIX))).tolist()

    @functools.cached_property
    def _factors(self) -> tuple[list[float], list[Array], list[Array]]:
        """Ends of the weights but the last, means, and a root R of each covariance R @ R.T."""
        # By eigenvalues, since a covariance may be singular.
        values, vectors = np.linalg.eigh(np.array(self.covariances))
        roots = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
        return np.cumsum(self.weights)[:-1].tolist(), list(np.array(self.means)), list(roots)

    def to_json(self) -> dict[str, Any]:
        """Gives a plain dictionary for `json.dumps`."""
        return {
            "weights": self.weights,
            "means": self.means,
            "covariances": self.covariances,
            "images": self.images,
            "bic": {str(number): bic for number, bic in enumerate(self.bic, 1)},
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Mixture":
        """Rebuilds the mixture from what `to_json` gave, also after a trip through JSON.

        Raises:
            InputError: it is not that.
        """
        images, bic = fields.get("images"), fields.get("bic")
        if type(images) is not int or images < 1:
            raise InputError("images must be a whole number above 0")
        if not isinstance(bic, Mapping) or list(bic) != [str(1 + k) for k in range(len(bic))]:
            raise InputError('bic must have the entries "1", "2" and so on')
        weights = array(fields.get("weights"), (None,), "weights")
        means = array(fields.get("means"), (len(weights), SIX), "means")
        shape = (len(weights), SIX, SIX)
        return cls(
            weights=_nested(weights),
            means=_nested(means),
            covariances=_nested(array(fields.get("covariances"), shape, "covariances")),
            images=images,
            bic=_nested(array(list(bic.values()), (len(bic),), "bic")),
        )


def fit(rows: Array, seed: int) -> Mixture:
    """Fits mixtures of up to 8 components by expectation maximisation, and keeps the best by BIC.

    Args:
        rows: the statistics, `[N, 6]`; N limits the components to N / 28.
        seed: of the starts; equal rows and seed give an equal mixture.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    middle, scale = rows.mean(axis=0), rows.std(axis=0)
    scale[scale <= 1e-12 * np.abs(middle)] = 1.0
    standardised = (rows - middle) / scale
    most = max(1, min(MOST_COMPONENTS, len(rows) // IMAGES_PER_COMPONENT))
    models: list[GaussianMixture] = []
    # Matrices of 6 x 6 gain nothing from threads, and beside other work they lose tenfold by them.
    with (
        threadpool_limits(1),
        warnings.catch_warnings(),
        Bar("fitting mixtures", most, "sizes") as bar,
    ):
        # A model that still moves has a likelihood all the same, and is judged by it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for components in range(1, most + 1):
            model = GaussianMixture(
                components,
                covariance_type="full",
                n_init=_STARTS,
                max_iter=_MOST_STEPS,
                reg_covar=_LEAST_VARIANCE,
                random_state=seed,
            )
            models.append(model.fit(standardised))
            bar.advance()
    bic = [float(model.bic(standardised)) for model in models]
    best = models[int(np.argmin(bic))]
    order = np.argsort(-cast(Array, best.weights_), kind="stable")
    covariances = cast(Array, best.covariances_)[order] * np.outer(scale, scale)
    return Mixture(
        weights=_nested(cast(Array, best.weights_)[order]),
        means=_nested(cast(Array, best.means_)[order] * scale + middle),
        covariances=_nested((covariances + covariances.transpose(0, 2, 1)) / 2),
        images=len(rows),
        bic=tuple(bic),
    )


def array(value: Any, shape: Sequence[int | None], name: str) -> Array:
    """Gives nested sequences of numbers as an array.

    Args:
        value: what a file holds.
        shape: what it must have; None stands for any length from 1 upwards.
        name: of the value, for the error.

    Raises:
        InputError: the shape is another, or something in it is no finite number.
    """
    try:
        found = np.asarray(value)
    except ValueError:
        found = np.array("lists of unequal lengths")
    fits = found.ndim == len(shape) and all(
        have == want or (want is None and have > 0)
        for have, want in zip(found.shape, shape, strict=True)
    )
    if not fits or found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        wanted = " x ".join("K" if length is None else str(length) for length in shape)
        raise InputError(f"{name} must be {wanted} finite numbers")
    return found.astype(np.float64)


def _nested(values: Array) -> Any:
    return tuple(values.tolist() if values.ndim == 1 else map(_nested, values))
