"""What was found of the instances in each test image, from which every metric of them follows."""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

AREAS = ("true", "predicted", "common")
OVERLAPS = ("common", "union")
MATCHES = ("tp", "fp", "fn", "iou")
FOUND = ("tp", "fp", "fn")
TYPED = ("tp", "fp", "fn", "unpaired_fp", "unpaired_fn")


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceCounts:
    """Counts of true and predicted instances, one row an image (N), of C types.

    Attributes:
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
        count, types = len(self.sample), self.matched_of_type.shape[1]
        shapes = {
            "group": (count,),
            "areas": (count, len(AREAS)),
            "aji": (count, len(OVERLAPS)),
            "aji_plus": (count, len(OVERLAPS)),
            "matched": (count, len(MATCHES)),
            "matched_of_type": (count, types, len(MATCHES)),
            "found": (count, len(FOUND)),
            "found_of_type": (count, types, len(TYPED)),
        }
        for each in fields(self):
            found = getattr(self, each.name).shape
            if found != shapes.get(each.name, found):
                raise ValueError(f"{each.name} has the shape {found}, not {shapes[each.name]}")
