"""The training of HoVer-Net's authors, with what their code does by mistake."""

from eosin.nuclei.loss import LossWeights
from eosin.nuclei.settings import Training
from eosin.protocols._base import Protocol
from eosin.protocols._division import NoSelection

PROTOCOL = Protocol(
    name="hovernet-official",
    version=1,
    source="vqdang/hover_net 67e2ce5: models/hovernet/{opt,net_desc,targets,utils}.py, "
    "dataloader/train_loader.py, config.py; and the authors on their choice of weights "
    "(issue 163: the test split was the validation split)",
    division=NoSelection(),
    metric="accuracy",
    choices=(
        "the encoder: any; theirs is a ResNet-50 with pre-activation",
        "a frozen encoder is frozen: in theirs the first convolution, a shortcut and the running "
        "statistics of BatchNorm still move",
        "random numbers: NumPy's; images are interpolated bilinearly, labels by the nearest pixel "
        "as theirs",
        "the best of ten measurements in the second phase, by Dice on the test split; they measure "
        "after every epoch",
        "metrics: ours, equal to theirs but for a prediction that is perfect (their SQ is .999999) "
        "and for images without nuclei",
    ),
    nuclei=Training(
        geometry="valid",
        weights=LossWeights(official_axis=True),
        official_targets=True,
        contrast=False,
        metric="dice",
        held_out=0.0,
        chosen_on="test",
    ),
)
