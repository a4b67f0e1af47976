"""DINOv2's linear evaluation, as far as cached embeddings carry it."""

from eosin.probes.dino_sweep import DinoSweep
from eosin.probes.neighbours import Neighbours
from eosin.protocols._base import Protocol
from eosin.protocols._division import OnReported

PROTOCOL = Protocol(
    name="dinov2-linear",
    version=1,
    source="facebookresearch/dinov2 b8931f7: dinov2/eval/{linear,knn}.py",
    division=OnReported(),
    metric="accuracy",
    choices=(
        "random numbers: NumPy's, so starts and batches differ from the source's",
        "a batch of 1,024: 128 on each of 8 GPUs",
        "embeddings of the images as they are; DINOv2 trains on random crops and flips",
        "the encoder's own pooling; DINOv2 also tries the last four blocks and mean tokens",
    ),
    linear=DinoSweep(),
    knn=Neighbours(ks=(10, 20, 100, 200), vote="exp", temperature=0.07, criterion="accuracy"),
)
