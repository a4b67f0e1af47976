"""The linear probe and nearest neighbours of mahmoodlab/UNI."""

from eosin.probes.neighbours import Neighbours
from eosin.probes.uni_head import UniHead
from eosin.protocols._base import Protocol
from eosin.protocols._division import NoSelection

PROTOCOL = Protocol(
    name="uni-linear",
    version=1,
    source="mahmoodlab/UNI 42715ef: downstream/eval_patch_features/{linear_probe,"
    "logistic_regression,fewshot}.py",
    division=NoSelection(),
    metric="balanced_accuracy",
    choices=("CRC: UNI trains on the images without colour normalisation (--on crc_nonorm)",),
    linear=UniHead(),
    knn=Neighbours(
        ks=(20,), vote="majority", centres=True, distance="euclidean", criterion="balanced_accuracy"
    ),
)
