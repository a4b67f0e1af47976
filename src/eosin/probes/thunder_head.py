"""The linear probe of THUNDER."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

from eosin.probes._base import Fitted, Material
from eosin.probes._criteria import macro_f1
from eosin.probes._descent import Adam, Heads, epoch_batches


@dataclass(frozen=True, kw_only=True)
class ThunderHead:
    """Linear layers trained by Adam on the same batches, the best of all heads and epochs taken.

    As thunder-bench 0.2.2 does (config/adaptation/frozen.yaml the grid; tasks/train_eval_probe.py
    `train_probe` the rest): one head for each learning rate and weight decay, the decay part of the
    gradient and of biases too, starts as `torch.nn.Linear` draws them, a smaller last batch, no
    schedule. After each epoch the held-out embeddings are classified; a head is taken where its
    macro-F1 is higher than any before. THUNDER does so on a GPU; on a CPU it keeps a view of the
    head, which goes on training, and scores what has become of it after the last epoch.

    Attributes:
        learning_rates: the outer order of the grid.
        weight_decays: the inner order.
        epochs: all are made.
        batch_size: embeddings of an update.
    """

    is_random: ClassVar[bool] = True

    learning_rates: tuple[float, ...] = (1e-3, 1e-4, 1e-5)
    weight_decays: tuple[float, ...] = (0.0, 1e-3, 1e-4)
    epochs: int = 200
    batch_size: int = 64

    def fit(self, material: Material, seed: int) -> Fitted:
        """Trains on the fold's own part; nothing is fitted again."""
        assert len(material.folds) == 1, "head and epoch are chosen on one held-out part"
        train, held_out = material.folds[0].fit, material.folds[0].held_out
        grid = [(rate, decay) for rate in self.learning_rates for decay in self.weight_decays]
        generator = np.random.default_rng(seed)
        heads = Heads(len(grid), material.n_classes, train.features.shape[1])
        heads.start_uniform(generator)
        rates = heads.of_each([rate for rate, _ in grid])
        decays = heads.of_each([decay for _, decay in grid])
        optimizer = Adam(heads.parameters, decays, is_decoupled=False)
        best, best_score, best_head, best_epoch = heads, -1.0, 0, 0
        with threadpool_limits(1):
            for epoch in range(self.epochs):
                for batch in epoch_batches(len(train), self.batch_size, generator):
                    features = train.features.take(batch, axis=0)
                    optimizer.update(heads.gradient(features, train.labels[batch]), rates)
                for head, predicted in enumerate(heads.predict(held_out.features)):
                    score = macro_f1(predicted, held_out.labels)
                    if score > best_score:
                        best, best_score = heads.copy_of(head), score
                        best_head, best_epoch = head, epoch
        rate, decay = grid[best_head]
        chosen = {
            "macro_f1": best_score,
            "learning_rate": rate,
            "weight_decay": decay,
            "epoch": best_epoch + 1,
        }
        return Fitted(predict=best.probabilities, chosen=chosen)
