"""How many near-duplicates the search finds where the truth is known, and how many are wrong.

The truth is a dataset whose groups are source images, of which its images are altered copies, as
LC25000 is. Run as `python -m eosin.audit.calibration FOLDER`.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosin.audit import duplicates, thumbnails
from eosin.datasets._base import LabelledImages, Options, check_labelled, find_dataset
from eosin.progress import Bar


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """What was found of the pairs within known groups."""

    images: int
    true_pairs: int
    found_pairs: int
    right_pairs: int
    images_with_copy: int
    images_found: int
    """Images with a copy for which at least one copy was found."""
    images_accused: int
    """Images that only wrong pairs were found for."""

    @property
    def precision(self) -> float:
        """Share of the pairs found that are of one group."""
        return self.right_pairs / max(self.found_pairs, 1)

    @property
    def pair_recall(self) -> float:
        """Share of the pairs of one group that were found."""
        return self.right_pairs / max(self.true_pairs, 1)

    @property
    def image_recall(self) -> float:
        """Share of the images with a copy for which a copy was found."""
        return self.images_found / max(self.images_with_copy, 1)


class Joined:
    """All images of several splits, one after the other."""

    def __init__(self, splits: Sequence[LabelledImages]) -> None:
        self._places = [(split, number) for split in splits for number in range(len(split))]

    def __len__(self) -> int:
        return len(self._places)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Reads an image as uint8 RGB [H, W, 3]."""
        split, number = self._places[index]
        return split.read(number)


def find_within(
    source: thumbnails.Source, *, correlation: float = duplicates.CORRELATION
) -> list[duplicates.Pair]:
    """Finds the near-duplicates among the images of one set, each pair once."""
    left_out = thumbnails.LeftOut(near_constant=[], unreadable={})
    with Bar("reading", len(source), "images") as bar:
        parts = [
            duplicates.describe(part)
            for part in thumbnails.read_thumbnails(source, bar, left_out, 4096)
        ]
    if not parts:
        return []
    joined = duplicates.join(parts)
    return duplicates.Search(joined, is_same_set=True, correlation=correlation).against(joined)


def judge(pairs: Sequence[duplicates.Pair], groups: NDArray[np.str_]) -> Quality:
    """Counts how many of the pairs are of one group, and how many pairs there are to be found."""
    names, group_of = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group_of, minlength=len(names))
    found = np.array([(pair.query, pair.reference) for pair in pairs], np.int64).reshape(-1, 2)
    is_right = group_of[found[:, 0]] == group_of[found[:, 1]]
    with_right = np.unique(found[is_right])
    return Quality(
        images=len(groups),
        true_pairs=int((sizes * (sizes - 1) // 2).sum()),
        found_pairs=len(found),
        right_pairs=int(is_right.sum()),
        images_with_copy=int(sizes[sizes > 1].sum()),
        images_found=len(with_right),
        images_accused=len(np.setdiff1d(found[~is_right], with_right)),
    )


def report(root: Path, thresholds: Sequence[float]) -> Iterator[str]:
    """Yields a line on the quality at each threshold of the correlation, and the worst mistakes."""
    module, options = find_dataset(root), Options()
    check_labelled(module, root)
    splits = [module.load(root, name, options) for name in module.splits(root, options)]
    groups = np.concatenate([split.groups for split in splits])
    ids = [image for split in splits for image in split.ids]
    pairs = find_within(Joined(splits), correlation=min(thresholds))
    for threshold in sorted(thresholds):
        quality = judge([pair for pair in pairs if pair.correlation >= threshold], groups)
        yield (
            f"correlation {threshold:.2f}: precision {quality.precision:.4f}, recall of pairs "
            f"{quality.pair_recall:.4f}, of images {quality.image_recall:.4f}  {asdict(quality)}"
        )
    wrong = [pair for pair in pairs if groups[pair.query] != groups[pair.reference]]
    for pair in sorted(wrong, key=lambda pair: -pair.correlation)[:40]:
        first, second = ids[pair.query], ids[pair.reference]
        yield f"of different groups: {first} and {second}, {pair.correlation:.3f}"


def main() -> None:
    """Prints the report on a folder."""
    parser = argparse.ArgumentParser(description="Measure the search for near-duplicates.")
    parser.add_argument("folder", type=Path, help="dataset that is grouped by source image")
    parser.add_argument(
        "--correlation", type=float, nargs="+", default=[0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    )
    given = parser.parse_args()
    for line in report(given.folder, given.correlation):
        print(line)


if __name__ == "__main__":
    main()
