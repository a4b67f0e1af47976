"""Two views of MoCo v2 with RandStainNA in LAB, on one core, against lightly with the reference.

    python -m bench.views_moco_stain --json

As `bench.views_moco`, and every view is stained to a draw from the published statistics of CRC. The
peer stains the whole tile before each crop, as published, by the plain NumPy rendition of the
formula that our tests compare with; it is also timed staining after the crop, which is cheaper and
normalises by the crop's own statistics. Ours measures the tile once and stains what was cropped by
the tile's statistics.
"""

from collections.abc import Callable

import numpy as np
from lightly.transforms import MoCoV2Transform
from PIL import Image

from bench._compare import arguments, versions_of
from bench._views import compare_views, options
from eosin.images.presets import moco_v2
from eosin.images.stain import published
from tests.reference_stain import restain

STAIN = published("lab")


def reference_stain(rng: np.random.Generator) -> Callable[[Image.Image], Image.Image]:
    """Stains a PIL image to a new draw each time."""

    def stain(picture: Image.Image) -> Image.Image:
        target = STAIN.draw(rng)
        return Image.fromarray(restain(np.array(picture), "lab", target.means, target.stds))

    return stain


def staining_the_tile() -> Callable[[Image.Image], object]:
    """Each view crops a tile of its own stain."""
    stain, views = reference_stain(np.random.default_rng(0)), MoCoV2Transform().transforms
    return lambda picture: [view(stain(picture)) for view in views]


def staining_the_crop() -> Callable[[Image.Image], object]:
    """Each view stains its crop."""
    stain, views = reference_stain(np.random.default_rng(0)), MoCoV2Transform()
    for steps in {
        id(view.transform): view.transform.transforms for view in views.transforms
    }.values():
        steps.insert(1, stain)
    return views


def main() -> None:
    """Runs the benchmark."""
    lightly = f"lightly {versions_of('lightly')['lightly']}"
    given = options(arguments(__doc__ or "", rounds=5))
    views = moco_v2("official").changed(stain=STAIN, stain_p=1.0)
    peers = {
        f"{lightly} + RandStainNA on the tile": staining_the_tile(),
        f"{lightly} + RandStainNA on the crop": staining_the_crop(),
    }
    compare_views("views_moco_stain", given, views, peers)


if __name__ == "__main__":
    main()
