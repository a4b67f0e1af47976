"""The 2 + 8 crops of DINO from a decoded tile, on one core, against lightly's transform.

    python -m bench.views_dino --json

Both draw and make two crops of 224 px and eight of 96 px from tiles of 512 px with the scales,
strengths and probabilities of the official code; lightly resizes with a bilinear filter, ours with
the official bicubic one, which takes twice as many pixels. Ours are uint8 and are normalised on the
device that trains; lightly's are normalised float32.
"""

from lightly.transforms import DINOTransform

from bench._compare import arguments, versions_of
from bench._views import compare_views, options
from eosin.images.presets import dino


def main() -> None:
    """Runs the benchmark."""
    peer = f"lightly {versions_of('lightly')['lightly']} DINOTransform"
    given = options(arguments(__doc__ or ""))
    compare_views("views_dino", given, dino("official"), {peer: DINOTransform(n_local_views=8)})


if __name__ == "__main__":
    main()
