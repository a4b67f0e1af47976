"""What stain augmentation draws from: how channel statistics vary between images."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from eosin.errors import InputError, UsageError
from eosin.images.stain_channels import SPACES, Space, StainTarget, Triple
from eosin.images.stain_mixture import Mixture, array

Distribution = Literal["normal", "laplace", "uniform", "mixture"]

DISTRIBUTIONS: tuple[Distribution, ...] = ("normal", "laplace", "uniform", "mixture")
STD_HYPER = -0.3
"""What the repository's example has."""

_FORMAT, _VERSION = "eosin-stain", 1
_STATISTICS = ("mean_of_means", "std_of_means", "mean_of_stds", "std_of_stds")
_WIDTH_OF_UNIFORM = 3.0  # standard deviations to either side


@dataclass(frozen=True, kw_only=True)
class Stain:
    """What the targets of stain augmentation are drawn from.

    Raises:
        InputError: a value that no target can be drawn with; the message names it.
    """

    name: str
    source: str
    """Where the statistics come from, for people."""
    space: Space
    distribution: Distribution = "normal"
    std_hyper: float = STD_HYPER
    """The spread of normal and Laplace is 1 + this times the fitted one; the others ignore it."""
    mean_of_means: Triple
    """Over the images, of each channel's mean."""
    std_of_means: Triple
    mean_of_stds: Triple
    """Over the images, of each channel's standard deviation."""
    std_of_stds: Triple
    mixture: Mixture | None = None

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise InputError(f"space is {self.space!r}; it must be one of {', '.join(SPACES)}")
        if self.distribution not in DISTRIBUTIONS:
            raise InputError(
                f"distribution is {self.distribution!r}; it must be one of "
                f"{', '.join(DISTRIBUTIONS)}"
            )
        if not -1 <= array(self.std_hyper, (), "std_hyper") < np.inf:
            raise InputError(f"std_hyper is {self.std_hyper}; it must be -1 or more")
        for name in _STATISTICS:
            numbers = array(getattr(self, name), (3,), name)
            if name != "mean_of_means" and numbers.min() < 0:
                raise InputError(f"{name} is {getattr(self, name)}; none may be below 0")
        if self.distribution == "mixture" and self.mixture is None:
            raise InputError(
                "distribution is mixture, but no mixture was fitted; choose normal, laplace or "
                "uniform, or fit a mixture with `eosin stain fit`"
            )

    def draw(self, rng: np.random.Generator) -> StainTarget:
        """Draws the statistics of one view.

        Normal, Laplace (with the spread as its scale, so its standard deviation is sqrt 2 times
        that) and uniform (3 spreads to either side) draw each of the six on its own, and a standard
        deviation may come out below 0, which inverts its channel: so it is published. The mixture
        draws the six together, and takes a standard deviation below 0 as 0.
        """
        if self.distribution == "mixture" and self.mixture is not None:
            row = self.mixture.draw(rng)
            row[3:] = [std if std > 0 else 0.0 for std in row[3:]]
        else:
            middle, spread = self._middle_and_spread
            if self.distribution == "normal":
                drawn = rng.standard_normal(6)
            elif self.distribution == "laplace":
                drawn = rng.laplace(size=6)
            else:
                drawn = rng.uniform(-_WIDTH_OF_UNIFORM, _WIDTH_OF_UNIFORM, 6)
            row = (middle + spread * drawn).tolist()
        means, stds = (row[0], row[1], row[2]), (row[3], row[4], row[5])
        return StainTarget(space=self.space, means=means, stds=stds)

    @functools.cached_property
    def _middle_and_spread(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        spread = np.array(self.std_of_means + self.std_of_stds)
        if self.distribution != "uniform":
            spread *= 1 + self.std_hyper
        return np.array(self.mean_of_means + self.mean_of_stds), spread

    def with_distribution(
        self, distribution: Distribution, std_hyper: float | None = None
    ) -> "Stain":
        """Gives the same statistics with another way to draw from them.

        Raises:
            UsageError: the mixture is asked for and there is none.
        """
        std_hyper = self.std_hyper if std_hyper is None else std_hyper
        try:
            return replace(self, distribution=distribution, std_hyper=std_hyper)
        except InputError as error:
            raise UsageError(f"Stain {self.name}: {error}.") from error

    def to_json(self) -> dict[str, Any]:
        """Gives a plain dictionary for `json.dumps`; `from_json` ignores what is added to it."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "name": self.name,
            "source": self.source,
            "space": self.space,
            "distribution": self.distribution,
            "std_hyper": self.std_hyper,
            "statistics": {name: list(getattr(self, name)) for name in _STATISTICS},
            "mixture": None if self.mixture is None else self.mixture.to_json(),
        }

    @classmethod
    def from_json(cls, fields: Any) -> "Stain":
        """Rebuilds a stain from what `to_json` gave, also after a trip through JSON.

        Raises:
            InputError: it is not that; the message says what is wrong.
        """
        if not isinstance(fields, Mapping) or fields.get("format") != _FORMAT:
            raise InputError(f'it has no "format": "{_FORMAT}"')
        if fields.get("version") != _VERSION:
            raise InputError(f"its version is {fields.get('version')!r}, and {_VERSION} is known")
        statistics, mixture = fields.get("statistics"), fields.get("mixture")
        if not isinstance(statistics, Mapping):
            raise InputError("it has no statistics")
        if not isinstance(mixture, Mapping | None):
            raise InputError("its mixture is no object")
        for name in ("name", "source", "space", "distribution"):
            if not isinstance(fields.get(name), str):
                raise InputError(f"its {name} is no text")
        triples = {
            name: tuple(array(statistics.get(name), (3,), name).tolist()) for name in _STATISTICS
        }
        return cls(
            name=fields["name"],
            source=fields["source"],
            space=cast(Space, fields["space"]),
            distribution=cast(Distribution, fields["distribution"]),
            std_hyper=float(array(fields.get("std_hyper"), (), "std_hyper")),
            mixture=None if mixture is None else Mixture.from_json(mixture),
            **cast(dict[str, Any], triples),
        )

    @classmethod
    def load(cls, path: str | Path) -> "Stain":
        """Reads a file that `eosin stain fit` wrote.

        Raises:
            InputError: it cannot be read, or is none.
        """
        try:
            return cls.from_json(json.loads(Path(path).read_bytes()))
        except OSError as error:
            raise InputError(f"Stain {path} cannot be read: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"Stain {path} is not JSON ({error}); write one with `eosin stain fit`."
            ) from error
        except InputError as error:
            raise InputError(
                f"Stain {path} cannot be used: {error}. Write it again with `eosin stain fit`."
            ) from error
