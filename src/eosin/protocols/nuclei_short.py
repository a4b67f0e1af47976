"""HoVer-Net at a quarter of its width and a fraction of its length, for a CPU."""

from eosin.nuclei.settings import Phase, Training
from eosin.protocols._base import Protocol
from eosin.protocols._division import WithinTraining

PROTOCOL = Protocol(
    name="nuclei-short",
    version=1,
    source="Eosin",
    division=WithinTraining(folds=5),
    metric="balanced_accuracy",
    nuclei=Training(
        phases=(
            Phase(epochs=1, batch_size=8, is_frozen=True),
            Phase(epochs=6, batch_size=8, is_frozen=False),
        ),
        learning_rate=1e-3,
        input_px=128,
        overlap_px=32,
        width=0.25,
        measured=4,
    ),
)
