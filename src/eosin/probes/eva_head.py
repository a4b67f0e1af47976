"""The linear probe of kaiko-ai/eva."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

from eosin.probes._base import Fitted, Labels, Material, Samples
from eosin.probes._descent import Adam, Heads, epoch_batches


@dataclass(frozen=True, kw_only=True)
class EvaHead:
    """A linear layer trained by AdamW, its best epoch by balanced accuracy on held-out embeddings.

    As kaiko-ai/eva 73b61a79 does, where configs/vision/pathology/offline/classification/*.yaml
    leave much to defaults: weight decay 0.01 (`torch.optim.AdamW`; the documentation says 0), a
    learning rate of a third during the first 5 epochs (core/models/modules/head.py lines 32 and
    73-77: `ConstantLR` by epochs), weights and biases as `torch.nn.Linear` draws them, a smaller
    last batch, all shuffled each epoch. Two classes have one logit. After each whole epoch the
    held-out embeddings are classified; training ends when `patience` epochs in a row have brought
    no higher score. Updates of an epoch that the last one cuts short are made and never looked at.

    Attributes:
        learning_rate: after the first epochs.
        weight_decay: decoupled, of biases too.
        warm_up_epochs: at a third of the learning rate.
        updates: at most.
        batch_size: embeddings of an update.
        patience: share of all updates, rounded up to whole epochs: 1,250 for BACH, 7 for CRC, 278
            for MHIST, 3 for PatchCamelyon.
    """

    is_random: ClassVar[bool] = True

    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    warm_up_epochs: int = 5
    updates: int = 12_500
    batch_size: int = 256
    patience: float = 0.2

    def fit(self, material: Material, seed: int) -> Fitted:
        """Trains on the fold's own part; without a fold, on everything and to the end."""
        assert len(material.folds) < 2, "an epoch is chosen on one held-out part"
        fold = material.folds[0] if material.folds else None
        train = fold.fit if fold else material.train
        return self._train(train, fold.held_out if fold else None, material.n_classes, seed)

    def patience_in_epochs(self, count: int) -> int:
        """Gives after how many epochs without a higher score training on `count` samples ends."""
        return ceil(self.patience * self.updates / ceil(count / self.batch_size) - 1e-9)

    def _train(self, train: Samples, held_out: Samples | None, n_classes: int, seed: int) -> Fitted:
        generator = np.random.default_rng(seed)
        heads = Heads(1, 1 if n_classes == 2 else n_classes, train.features.shape[1])
        heads.start_uniform(generator)
        score = _macro_accuracy if n_classes > 2 else _binary_balanced_accuracy
        best, best_score, best_epoch = heads, -1.0, 0
        epoch = updates = 0
        patience = self.patience_in_epochs(len(train))
        whole = ceil(len(train) / self.batch_size)
        with threadpool_limits(1):
            for epoch, made in enumerate(self._epochs(heads, train, generator)):
                updates += made
                if held_out is None or made < whole:
                    continue
                reached = score(heads.predict(held_out.features)[0], held_out.labels, n_classes)
                if reached > best_score:
                    best, best_score, best_epoch = heads.copy_of(0), reached, epoch
                if epoch - best_epoch >= patience:
                    break
        chosen = {"epochs": epoch + 1, "updates": updates}
        if held_out is not None and best is not heads:
            chosen |= {"balanced_accuracy": float(best_score), "epoch": best_epoch + 1}
        return Fitted(predict=best.probabilities, chosen=chosen)

    def _epochs(
        self, heads: Heads, train: Samples, generator: np.random.Generator
    ) -> Iterator[int]:
        """Trains; after each epoch gives how many updates it made."""
        optimizer = Adam(heads.parameters, self.weight_decay, is_decoupled=True)
        left, epoch = self.updates, 0
        while left > 0:
            rate = self.learning_rate / (3 if epoch < self.warm_up_epochs else 1)
            batches = epoch_batches(len(train), self.batch_size, generator)
            made = 0
            for batch in islice(batches, left):
                features = train.features.take(batch, axis=0)
                optimizer.update(heads.gradient(features, train.labels[batch]), rate)
                made += 1
            left -= made
            epoch += 1
            yield made


def _macro_accuracy(predicted: Labels, labels: Labels, n_classes: int) -> np.float32:
    """Averages the share of hits over the classes that occur in `labels` or in `predicted`.

    In float32, as torchmetrics' `MulticlassAccuracy`: what is equal there must be equal here.
    """
    count = np.bincount(labels, minlength=n_classes)
    occurs = count + np.bincount(predicted, minlength=n_classes) > 0
    hits = np.bincount(labels[predicted == labels], minlength=n_classes)
    shares = hits[occurs].astype(np.float32) / np.maximum(count[occurs], 1).astype(np.float32)
    return (shares / np.float32(occurs.sum())).sum(dtype=np.float32)


def _binary_balanced_accuracy(predicted: Labels, labels: Labels, n_classes: int) -> np.float32:
    """Averages sensitivity and specificity; that of a class without samples is 0."""
    count = np.bincount(labels, minlength=n_classes)
    hits = np.bincount(labels[predicted == labels], minlength=n_classes)
    shares = hits.astype(np.float32) / np.maximum(count, 1).astype(np.float32)
    return np.float32(0.5) * (shares[1] + shares[0])
