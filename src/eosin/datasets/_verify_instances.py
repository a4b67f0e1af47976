"""Whether a dataset of outlined nuclei on the disk is the published one, and whole."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from eosin.datasets._base import ALL, Info
from eosin.datasets._findings import Finding
from eosin.datasets._instances import InstanceSet
from eosin.datasets._verify import Checked, Look, in_order, look_at_pixels, verify_images


def verify_instances(files: InstanceSet, info: Info) -> list[Finding]:
    """Checks images and their nuclei against what is published of them.

    Every image and every outline is read. The findings come in the order of `KINDS`.
    """
    nuclei: dict[int, int] = {}
    oddities: dict[int, tuple[str, ...]] = {}

    def look(index: int) -> Look:
        seen = files.read(files.entries[index])
        nuclei[index] = len(seen.labelled.types)
        oddities[index] = seen.oddities
        return look_at_pixels(seen.labelled.image)

    checked = Checked(
        root=files.root,
        places=[entry.id for entry in files.entries],
        labels=np.zeros(len(files.entries), dtype=np.int64),
        division=[entry.split for entry in files.entries],
        classes=files.classes,
        look=look,
    )
    found = [*files.findings, *verify_images(checked, info)]
    for index in sorted(oddities):
        where = files.entries[index].id
        found += [Finding(kind="label", where=where, sentence=each) for each in oddities[index]]
    return in_order([*found, *_nuclei(files, info, nuclei)])


def _nuclei(files: InstanceSet, info: Info, nuclei: dict[int, int]) -> Iterator[Finding]:
    """Yields where whole splits have more or fewer nuclei than were published.

    A split with images missing or unreadable is left out, since those were told already.
    """
    images: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for index, entry in enumerate(files.entries):
        for split in (entry.split, ALL):
            images[split] += index in nuclei
            found[split] += nuclei.get(index, 0)
    for split, published in info.instances.items():
        expected = info.images if split == ALL else info.counts.get(split)
        if images[split] == expected and found[split] != published:
            what = "the data set" if split == ALL else f"the {split} split"
            sentence = (
                f"{files.root}: of {what}, {published:,} nuclei are published, {found[split]:,} "
                "here."
            )
            yield Finding(kind="count", where=what, sentence=sentence)
