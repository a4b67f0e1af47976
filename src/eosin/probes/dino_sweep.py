"""The linear evaluation of DINOv2, on embeddings that are there already."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

from eosin.probes._base import Fitted, Material, Samples
from eosin.probes._criteria import accuracy
from eosin.probes._descent import Heads, Momentum, endless_batches
from eosin.provenance import available_cores

# Heads that share a thread; fixed, so that the result does not depend on the number of cores.
_TOGETHER = 4


@dataclass(frozen=True, kw_only=True)
class DinoSweep:
    """Linear layers trained by SGD at 13 learning rates, the best on held-out embeddings taken.

    As dinov2/eval/linear.py at b8931f7 does (lines 110-127 the settings, `scale_lr`,
    `LinearClassifier` the start, `run_eval_linear` the optimiser, `evaluate_linear_classifiers` the
    choice): momentum 0.9, no weight decay, cosine to zero, batches of one size from one shuffled
    pass after the other, weights from a normal distribution of 0.01, and of equally accurate heads
    the first. The batch is that of the launcher's default, 8 GPUs with 128 images each
    (dinov2/run/submit.py).

    Embeddings cannot carry what DINOv2 trains on beside them: random crops and flips of every
    image, and, in three further heads for each learning rate, the class tokens of the last four
    blocks and the mean of the patch tokens.

    Attributes:
        learning_rates: for a batch of 256.
        momentum: of SGD.
        updates: all are made.
        batch_size: embeddings of an update.
    """

    is_random: ClassVar[bool] = True

    learning_rates: tuple[float, ...] = (
        1e-5,
        2e-5,
        5e-5,
        1e-4,
        2e-4,
        5e-4,
        1e-3,
        2e-3,
        5e-3,
        1e-2,
        2e-2,
        5e-2,
        0.1,
    )
    momentum: float = 0.9
    updates: int = 12_500
    batch_size: int = 1024

    def fit(self, material: Material, seed: int) -> Fitted:
        """Trains on the fold's own part; nothing is fitted again."""
        assert len(material.folds) == 1, "a learning rate is chosen on one held-out part"
        train, held_out = material.folds[0].fit, material.folds[0].held_out
        groups = [
            self.learning_rates[start : start + _TOGETHER]
            for start in range(0, len(self.learning_rates), _TOGETHER)
        ]

        def train_group(number: int) -> Heads:
            return self._train(train, groups[number], material.n_classes, seed, number)

        with threadpool_limits(1), ThreadPoolExecutor(available_cores()) as pool:
            trained = list(pool.map(train_group, range(len(groups))))
        heads = [group.copy_of(each) for group in trained for each in range(group.n_heads)]
        scores = [accuracy(head.predict(held_out.features)[0], held_out.labels) for head in heads]
        best = int(np.argmax(scores))
        chosen = {"accuracy": scores[best], "learning_rate": self.learning_rates[best]}
        return Fitted(predict=heads[best].probabilities, chosen=chosen)

    def _train(
        self, train: Samples, rates: tuple[float, ...], n_classes: int, seed: int, group: int
    ) -> Heads:
        heads = Heads(len(rates), n_classes, train.features.shape[1])
        heads.start_normal(np.random.default_rng([seed, group]), 0.01)
        peaks = heads.of_each([rate * self.batch_size / 256 for rate in rates])
        optimizer = Momentum(heads.parameters, self.momentum)
        # All groups see the same batches.
        batches = endless_batches(len(train), self.batch_size, np.random.default_rng(seed))
        for update, batch in zip(range(self.updates), batches, strict=False):
            share = np.float32(0.5 * (1 + np.cos(np.pi * update / self.updates)))
            features = train.features.take(batch, axis=0)
            optimizer.update(heads.gradient(features, train.labels[batch]), peaks * share)
        return heads
