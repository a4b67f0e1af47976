"""OpenCV's own threads, switched off where images are worked on by threads of ours."""

from collections.abc import Generator
from contextlib import contextmanager

import cv2


@contextmanager
def one_opencv_thread() -> Generator[None]:
    """Lets OpenCV work in the calling thread alone; the setting is one for the whole process."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
