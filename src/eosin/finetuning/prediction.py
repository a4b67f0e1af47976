"""Probabilities of classes by a fine-tuned encoder."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray

from eosin.datasets._base import LabelledImages
from eosin.embeddings.extract import NO_SHIFT, Config, Extractor, batches_of
from eosin.engine import distributed
from eosin.engine.precision import Precision
from eosin.engine.sharing import share, together
from eosin.finetuning.classifier import Classifier
from eosin.progress import Bar

Matrix = NDArray[np.float32]


def predict(
    classifier: Classifier,
    images: LabelledImages,
    index: NDArray[np.int64],
    *,
    precision: Precision,
    shift: str = NO_SHIFT,
    title: str,
) -> Matrix:
    """Gives the probability of each class for some images, the same in every process.

    Images are read, shifted and resized as for embeddings, and embedded by the same code; the
    linear layer and the softmax are computed in float32. Each of several processes takes a part.

    Args:
        classifier: trained; it is put into evaluation mode.
        images: where the images are from.
        index: which.
        precision: number format of the encoder.
        shift: what is done to the images before they are resized.
        title: what the progress bar says.

    Returns:
        [N, C].

    Raises:
        Diverged: an embedding is not finite.
        InputError: an image cannot be read.
    """
    own = _Chosen(images, share(index))
    probabilities = together(lambda: _predict(classifier, own, precision, shift, title))
    return np.concatenate(distributed.gather_objects(probabilities))


class _Chosen:
    """Some images of a split, as they are embedded."""

    def __init__(self, images: LabelledImages, index: NDArray[np.int64]) -> None:
        self._images, self._index = images, index

    @property
    def ids(self) -> Sequence[str]:
        return [self._images.ids[number] for number in self._index.tolist()]

    @property
    def manifest_sha256(self) -> str:
        return self._images.manifest_sha256

    def read(self, index: int) -> NDArray[np.uint8]:
        return self._images.read(int(self._index[index]))


def _predict(
    classifier: Classifier, images: _Chosen, precision: Precision, shift: str, title: str
) -> Matrix:
    count = len(images.ids)
    head = classifier.head
    probabilities = np.empty((count, head.out_features), dtype=np.float32)
    config = Config(precision=precision)
    classifier.eval()
    extractor = Extractor(classifier.encoder, images, config, shift, expected=count)
    weight, bias = head.weight.detach().cpu(), head.bias.detach().cpu()
    with (
        Bar(title, count, "images", is_hidden=not distributed.is_main()) as bar,
        closing(extractor.run(batches_of(count, config.batch_size))) as made,
    ):
        for batch in made:
            scores = torch.from_numpy(batch.embeddings) @ weight.T + bias
            rows = slice(batch.images.start, batch.images.stop)
            probabilities[rows] = scores.softmax(1).numpy()
            bar.advance(len(batch.images))
    return probabilities
