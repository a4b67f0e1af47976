"""The benchmark THUNDER, release 0.2."""

from eosin.probes.neighbours import Neighbours
from eosin.probes.thunder_head import ThunderHead
from eosin.protocols._base import FewShot, Protocol
from eosin.protocols._division import ThunderSplits

PROTOCOL = Protocol(
    name="thunder-0.2",
    version=1,
    source="thunder-bench 0.2.2: adaptation/frozen.yaml, knn.yaml, train_eval_probe.py, "
    "image_retrieval.py, simple_shot.py",
    division=ThunderSplits(),
    metric="macro_f1",
    choices=(
        "random numbers: NumPy's, so starts and batches differ from the source's",
        "the best head and epoch: as THUNDER does on a GPU; on a CPU its best head goes on "
        "training, and the last is scored",
        "few shots: the distribution over episodes; THUNDER lets the episodes vote and scores "
        "the majority once",
        "PatchCamelyon's and other validation splits are taken as they are; data sets that "
        "THUNDER divides by lists of its own are divided as its CRC is",
    ),
    linear=ThunderHead(),
    knn=Neighbours(
        ks=(1, 3, 5, 10, 20, 30, 40, 50), vote="majority", centres=False, criterion="macro_f1"
    ),
    few_shot=FewShot(),
)
