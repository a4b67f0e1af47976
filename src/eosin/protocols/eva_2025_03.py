"""The leaderboard of kaiko-ai/eva as of March 2025."""

from eosin.probes.eva_head import EvaHead
from eosin.protocols._base import Protocol
from eosin.protocols._division import OnReported

PROTOCOL = Protocol(
    name="eva-2025-03",
    version=1,
    source="kaiko-ai/eva 73b61a79 (kaiko-eva 0.4.5), "
    "configs/vision/pathology/offline/classification/*.yaml and core/models/modules/head.py",
    division=OnReported(),
    metric="balanced_accuracy",
    choices=(
        "random numbers: NumPy's, so starts and batches differ from the source's",
        "seeds: every run has a seed of its own; eva's five runs continue one stream of random "
        "numbers, so that none can be repeated alone",
        "images: the whole image at the encoder's input size; eva takes the middle square of a "
        "photograph that is not square (BACH)",
        "PatchCamelyon: the test split is reported; eva shows the validation split beside it",
    ),
    linear=EvaHead(),
)
