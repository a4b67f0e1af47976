"""Two views of MoCo v2 from a decoded tile, on one core, against lightly's transform.

    python -m bench.views_moco --json

Both draw and make two views of 224 px from tiles of 512 px with the same scales, strengths and
probabilities, which are the official code's. Both resize with an antialiased filter and do all four
colour operations in random order. Ours are uint8 and are normalised on the device that trains;
lightly's are normalised float32.
"""

from lightly.transforms import MoCoV2Transform

from bench._compare import arguments, versions_of
from bench._views import compare_views, options
from eosin.images.presets import moco_v2


def main() -> None:
    """Runs the benchmark."""
    peer = f"lightly {versions_of('lightly')['lightly']} MoCoV2Transform"
    given = options(arguments(__doc__ or ""))
    compare_views("views_moco", given, moco_v2("official"), {peer: MoCoV2Transform()})


if __name__ == "__main__":
    main()
