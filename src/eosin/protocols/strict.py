"""Eosin's own: nothing of the test split is looked at before it is scored, once."""

from eosin.nuclei.settings import Training
from eosin.probes.neighbours import Neighbours
from eosin.probes.penalty_path import PenaltyPath
from eosin.protocols._base import FewShot, FineTuning, Protocol
from eosin.protocols._division import WithinTraining

# What all embeddings share, such as the positive mean that a ReLU leaves, brings all cosines near 1
# and hides the rest, so it is subtracted first.
KNN = Neighbours(
    ks=(1, 3, 5, 10, 20, 50),
    vote="exp",
    temperature=0.07,
    centres=True,
    criterion="balanced_accuracy",
)

NUCLEI = Training()

PROTOCOL = Protocol(
    name="strict",
    version=2,
    source="Eosin",
    division=WithinTraining(folds=5),
    metric="balanced_accuracy",
    linear=PenaltyPath(
        cs=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        max_iterations=1000,
        standardises=True,
        criterion="balanced_accuracy",
    ),
    knn=KNN,
    few_shot=FewShot(),
    finetune=FineTuning(
        learning_rates=(1e-4, 3e-4, 1e-3),
        layer_decay=0.75,
        weight_decay=0.05,
        epochs=30,
        warm_up=0.1,
        batch_size=64,
        optimizer="adamw",
    ),
    nuclei=NUCLEI,
)
