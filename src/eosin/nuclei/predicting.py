"""Whole images through a trained network: their nuclei, and what was found of the true ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eosin.datasets._instances import InstanceImages, Labelled
from eosin.engine.precision import Precision
from eosin.images.opencv_threads import one_opencv_thread
from eosin.nuclei.hovernet import HoVerNet
from eosin.nuclei.metrics import count, stack
from eosin.nuclei.postprocess import Segmented, separate
from eosin.nuclei.segmenter import Predictor
from eosin.nuclei.settings import Training
from eosin.nuclei.stitching import predict_image
from eosin.results.instance_counts import InstanceCounts
from eosin.results.instance_scores import IMAGE_METRICS, image_scores

Image = NDArray[np.uint8]
Indices = NDArray[np.int64]

RADIUS_UM = 3.0
"""Centroids farther apart are of different nuclei: 12 pixels at 0.25 micrometres a pixel."""
_BATCH_SIZE = 16


@dataclass(frozen=True, eq=False)
class Compared:
    """One image with its true and its predicted nuclei."""

    id: str
    labelled: Labelled
    predicted: Segmented


class NucleiPredictor:
    """Finds the nuclei of whole images.

    `output_px` is the side of what each window gives of an image.

    Args:
        network: trained.
        training: the settings that it was trained by.
        precision: number format.
        device: where the network lies.
    """

    def __init__(
        self, network: HoVerNet, training: Training, precision: Precision, device: torch.device
    ) -> None:
        self._maps = Predictor(network, precision, device)
        self._training = training
        self.output_px = network.output_px(training.input_px)
        if network.geometry == "same":
            self.output_px -= training.overlap_px

    def __call__(self, image: Image, mpp: float) -> Segmented:
        """Finds the nuclei of an image [H, W, 3] with so many micrometres a pixel."""
        maps = predict_image(
            self._maps,
            image,
            in_px=self._training.input_px,
            out_px=self.output_px,
            batch_size=_BATCH_SIZE,
        )
        return separate(
            maps.foreground,
            maps.hv,
            maps.type_scores,
            mpp=mpp,
            settings=self._training.post_processing,
        )


def compare_images(
    predict: NucleiPredictor,
    images: InstanceImages,
    chosen: Indices,
    alter: Callable[[Image], Image] | None = None,
) -> Iterator[Compared]:
    """Yields chosen images with their true and predicted nuclei.

    Args:
        predict: finds nuclei.
        images: where they are from.
        chosen: which.
        alter: what is done to the pixels first.

    Raises:
        InputError: an image cannot be read.
    """
    for number in chosen.tolist():
        labelled = images.read(number)
        pixels = labelled.image if alter is None else alter(labelled.image)
        with one_opencv_thread():
            predicted = predict(pixels, images.mpp)
        yield Compared(images.ids[number], labelled, predicted)


def count_images(
    compared: Sequence[Compared], images: InstanceImages, chosen: Indices
) -> InstanceCounts:
    """Counts what was found in each of the chosen images."""
    rows = [
        count(
            (each.labelled.instances, each.labelled.types),
            (each.predicted.instances, each.predicted.types),
            len(images.classes),
            radius_px=RADIUS_UM / images.mpp,
        )
        for each in compared
    ]
    samples = np.array([each.id for each in compared])
    return stack(images.classes, samples, images.groups[chosen], rows)


def mean_scores(counts: InstanceCounts) -> Mapping[str, float]:
    """Averages the metrics of each image; 0 where one is defined for none."""
    found = image_scores(counts)
    return {
        name: float(np.nanmean(found[name])) if np.isfinite(found[name]).any() else 0.0
        for name in IMAGE_METRICS
    }
