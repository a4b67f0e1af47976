"""What was found of the instances in each test image, from which every metric of them follows."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHARED = {
    "areas": ("true", "predicted", "common"),
    "aji": ("common", "union"),
    "aji_plus": ("common", "union"),
    "matched": ("tp", "fp", "fn", "iou"),
    "found": ("tp", "fp", "fn"),
}
"""What is counted whatever the type, and the columns of each."""
OF_TYPES = {
    "matched_of_type": ("tp", "fp", "fn", "iou"),
    "found_of_type": ("tp", "fp", "fn", "unpaired_fp", "unpaired_fn"),
}
"""What is counted of each type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceCounts:
    """Counts of true and predicted instances, one row an image (N), of C types.

    Attributes:
        types: names of the types.
        sample: names of the images, [N].
        group: patient or slide of each, [N].
        areas: pixels of any instance: true, predicted and both, [N, 3].
        aji: pixels common to and in the union of the pairs that the aggregated Jaccard index is
            made of, unmatched instances within the union (Kumar et al. 2017), [N, 2].
        aji_plus: the same where each instance is paired once (Graham et al. 2019), [N, 2].
        matched: instances by IoU above 0.5, whatever their types: true positives, false positives,
            false negatives, and the sum of the IoU of the pairs (Kirillov et al. 2019), [N, 4].
        matched_of_type: the same among the instances of one type, [N, C, 4].
        found: instances paired by their centroids: pairs, unpaired predictions, unpaired truth,
            [N, 3].
        found_of_type: pairs of one type, pairs of which the prediction alone or the truth alone is
            of the type, unpaired predictions and unpaired truth of it, [N, C, 5].
    """

    types: tuple[str, ...]
    sample: npt.NDArray[np.str_]
    group: npt.NDArray[np.str_]
    areas: npt.NDArray[np.float64]
    aji: npt.NDArray[np.float64]
    aji_plus: npt.NDArray[np.float64]
    matched: npt.NDArray[np.float64]
    matched_of_type: npt.NDArray[np.float64]
    found: npt.NDArray[np.float64]
    found_of_type: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuses arrays that do not belong together.

        Raises:
            ValueError: a shape is another one.
        """
        count, types = len(self.sample), len(self.types)
        shapes: dict[str, tuple[int, ...]] = {"group": (count,)}
        shapes |= {name: (count, len(columns)) for name, columns in SHARED.items()}
        shapes |= {name: (count, types, len(columns)) for name, columns in OF_TYPES.items()}
        for name, expected in shapes.items():
            found = getattr(self, name).shape
            if found != expected:
                raise ValueError(f"{name} has the shape {found}, not {expected}")
