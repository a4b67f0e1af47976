"""Kang et al., CVPR 2023, as far as its protocol is publicly known."""

from dataclasses import replace

from eosin.protocols import strict
from eosin.protocols._base import Protocol
from eosin.protocols._division import WithinTraining

_OWN = strict.PROTOCOL
assert _OWN.finetune is not None

PROTOCOL = Protocol(
    name="paper",
    version=2,
    source="Kang et al., Benchmarking Self-Supervised Learning on Diverse Pathology Datasets, "
    "CVPR 2023, arXiv 2212.04690: Fig. 1 and abstract (Top-1 accuracy; linear evaluation and "
    "fine-tuning on BACH, CRC, PatchCamelyon and MHIST; mPQ on CoNSeP, also with fractions of its "
    "labels), and its authors' README (the official HoVer-Net)",
    division=WithinTraining(folds=5),
    metric="accuracy",
    choices=(
        "the division of BACH: that of 268 and 132 images which eva and THUNDER use",
        "CRC with the colour-normalised training images; the paper does not say which",
        "the linear classifier, its optimiser and penalties: those of strict",
        "what hyper-parameters are chosen on: the validation split or folds of the training split",
        "fine-tuning: optimiser, learning rates, length, batch and layer-wise decay of strict; "
        "augmentation: flips, turns by 90 degrees, crops and the colour jitter that "
        "third parties quote (0.2, 0.2, 0.2, 0.1)",
        "images as they are resized for the encoder: the whole image, to its input size",
        "nearest neighbours and few shots: not in the paper, so not offered",
        "nuclei: how encoders are attached, geometry, which mPQ (PanNuke's, of each image), and "
        "what weights are chosen on (held-out training images); the rest is the schedule and the "
        "loss of the official HoVer-Net, which the paper's authors say they used",
    ),
    linear=_OWN.linear,
    finetune=replace(_OWN.finetune, layer_decay=1.0),
    nuclei=replace(strict.NUCLEI, metric="mpq"),
)
