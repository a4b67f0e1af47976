"""DINOv2's logistic regression."""

from eosin.probes.penalty_path import PenaltyPath
from eosin.protocols._base import Protocol
from eosin.protocols._division import RandomTenth

PROTOCOL = Protocol(
    name="dinov2-logreg",
    version=1,
    source="facebookresearch/dinov2 b8931f7: dinov2/eval/log_regression.py",
    division=RandomTenth(),
    metric="accuracy",
    choices=(
        "the optimiser: ours, to the same optimum; DINOv2 runs cuML's L-BFGS in float64",
        "other than by default in DINOv2, nothing is chosen on the split that is reported",
    ),
    linear=PenaltyPath(
        cs=tuple(10 ** (-6 + 11 * step / 44) for step in range(45)),
        max_iterations=1000,
        standardises=False,
        criterion="accuracy",
    ),
)
