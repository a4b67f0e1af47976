"""Float64 reference of RandStainNA, written from its formula: slow, plain, independent of `src`.

Shen et al. 2022 (MICCAI), repository yiqings/RandStainNA at 4897b03: OpenCV's 8-bit LAB and HSV by
way of BGR, scikit-image's HED; statistics by np.mean and np.std; LAB and HSV clipped and truncated,
HED stretched by its own least and greatest value and truncated.
"""

import cv2
import numpy as np
from skimage.color import hed2rgb, rgb2hed

_SPACES = {
    "lab": (cv2.COLOR_BGR2LAB, cv2.COLOR_LAB2BGR),
    "hsv": (cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR),
}


def converted(image, space):
    """An RGB image `uint8[H, W, 3]` in a space: uint8 in LAB and HSV, float64 in HED."""
    if space == "hed":
        return rgb2hed(image)
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _SPACES[space][0])


def statistics(values):
    """Means [3] and population standard deviations [3] of what `converted` gave."""
    channels = [values[:, :, channel] for channel in range(3)]
    return np.array([np.mean(c) for c in channels]), np.array([np.std(c) for c in channels])


def restain(image, space, target_means, target_stds, by=None):
    """The stained image, RGB; `by` are means and stds to normalise by. None where HED is flat."""
    values = converted(image, space)
    means, stds = statistics(values) if by is None else map(np.asarray, by)
    gain = np.asarray(target_stds) / np.clip(stds, 0.0001, 255)
    values = (values - means) * gain + np.asarray(target_means)
    if space != "hed":
        values = np.clip(values, 0, 255).astype(np.uint8)
        return cv2.cvtColor(cv2.cvtColor(values, _SPACES[space][1]), cv2.COLOR_BGR2RGB)
    with np.errstate(over="ignore"):  # what is far brighter than white is clipped to it
        rgb = hed2rgb(values)
    low, high = rgb.min(), rgb.max()
    if high - low < 1e-9:
        return None
    return (255 * (rgb - low) / (high - low)).astype(np.uint8)
