"""What is fitted on and what hyper-parameters are chosen on: the divisions of the protocols.

A division only ever sees the labels that it may use: those of the chosen part of the training (and
validation) split, and those of the test split where a published protocol chooses on it.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from eosin.datasets._base import LabelledImages
from eosin.datasets._division import divide
from eosin.errors import TooFewImages

Index = NDArray[np.int64]
Labelled = Mapping[str, Index]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Some images of one split."""

    split: str
    index: Index


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """What is fitted on, and what the fit is judged by."""

    fit: tuple[Part, ...]
    held_out: Part


@dataclass(frozen=True, kw_only=True, eq=False)
class Divided:
    """What is fitted on in the end, what is chosen on before, and that in words."""

    train: tuple[Part, ...]
    folds: tuple[Fold, ...]
    selected_on: str


class Division(Protocol):
    """A rule that divides the images whose labels may be used."""

    def divide(
        self, splits: Mapping[str, LabelledImages], labelled: Labelled, seed: int
    ) -> Divided:
        """Divides.

        Args:
            splits: `train`, `test` and, where the dataset has one, `valid`.
            labelled: which images of `train` and `valid` have labels that may be used.
            seed: of what is random.

        Raises:
            TooFewImages: there are too few for it.
        """
        ...


@dataclass(frozen=True)
class WithinTraining:
    """Chooses on the validation split, or else by folds of whole groups of the training split."""

    folds: int = 5

    def divide(
        self, splits: Mapping[str, LabelledImages], labelled: Labelled, seed: int
    ) -> Divided:
        """Divides; the rest as in `Division`."""
        if "valid" in splits:
            return _on_validation(labelled)
        train = Part(split="train", index=labelled["train"])
        folds = list(self._grouped(splits["train"], train.index, seed))
        if not folds:
            raise TooFewImages(
                f"{splits['train'].dataset}: the training images are of too few groups to hold "
                "some out for choosing hyper-parameters; add images, or use more of the labels."
            )
        words = f"{len(folds)} folds of whole groups of the training split"
        return Divided(train=(train,), folds=tuple(folds), selected_on=words)

    def _grouped(self, images: LabelledImages, index: Index, seed: int) -> Sequence[Fold]:
        labels, groups = images.labels[index], images.groups[index]
        part = divide(labels, groups, [1 / self.folds] * self.folds, seed)
        # With very few groups a fold may be empty, or leave a single class to fit on.
        return [
            _fold("train", index, part == number)
            for number in range(self.folds)
            if (part == number).any() and len(np.unique(labels[part != number])) > 1
        ]


@dataclass(frozen=True)
class OnReported:
    """Chooses on the validation split, or else on the test split that is reported.

    It is what published results of the protocol were obtained by, and flatters them.
    """

    def divide(
        self, splits: Mapping[str, LabelledImages], labelled: Labelled, seed: int
    ) -> Divided:
        """Divides; the rest as in `Division`."""
        if "valid" in splits:
            return _on_validation(labelled)
        train = Part(split="train", index=labelled["train"])
        held_out = Part(split="test", index=np.arange(len(splits["test"])))
        return Divided(
            train=(train,),
            folds=(Fold(fit=(train,), held_out=held_out),),
            selected_on="test split, as the protocol does",
        )


@dataclass(frozen=True)
class NoSelection:
    """Fits on the training and the validation split together, and chooses nothing."""

    def divide(
        self, splits: Mapping[str, LabelledImages], labelled: Labelled, seed: int
    ) -> Divided:
        """Divides; the rest as in `Division`."""
        names = [name for name in ("train", "valid") if name in splits]
        parts = tuple(Part(split=name, index=labelled[name]) for name in names)
        return Divided(train=parts, folds=(), selected_on="nothing is chosen")


@dataclass(frozen=True)
class RandomTenth:
    """Chooses on the validation split, or else on a random tenth of the training images.

    In the end both are fitted on (dinov2/eval/log_regression.py, `eval_log_regression`, at
    facebookresearch/dinov2 b8931f7): the tenth is the head of `torch.randperm` after
    `torch.manual_seed(0)`.
    """

    def divide(
        self, splits: Mapping[str, LabelledImages], labelled: Labelled, seed: int
    ) -> Divided:
        """Divides; the rest as in `Division`."""
        if "valid" in splits:
            divided = _on_validation(labelled)
            return replace(divided, train=(*divided.train, divided.folds[0].held_out))
        index = labelled["train"]
        count = len(index)
        if count < 10:
            raise TooFewImages(
                f"{splits['train'].dataset}: a tenth of {count} training images is none; use more."
            )
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
        held_out, rest = index[order[: count // 10]], index[order[count // 10 :]]
        fold = Fold(
            fit=(Part(split="train", index=rest),), held_out=Part(split="train", index=held_out)
        )
        return Divided(
            train=(*fold.fit, fold.held_out),
            folds=(fold,),
            selected_on="a random tenth of the training split",
        )


@dataclass(frozen=True)
class ThunderSplits:
    """THUNDER's own divisions (thunder-bench 0.2.2, datasets/dataset/*.py).

    BACH's training images in 218 and 50 by index; of CRC a random fifth, images of one patient on
    both sides; of MHIST each training image with a probability of a fifth, in the order of the
    annotations; the validation split of PatchCamelyon. Other datasets are divided as CRC is.
    """

    bach_valid: ClassVar[tuple[tuple[int, int], ...]] = (
        (15, 25),
        (110, 120),
        (200, 210),
        (305, 315),
        (380, 390),
    )
    seed: int = field(default=0)

    def divide(
        self, splits: Mapping[str, LabelledImages], labelled: Labelled, seed: int
    ) -> Divided:
        """Divides; the rest as in `Division`."""
        if "valid" in splits:
            return _on_validation(labelled)
        index = labelled["train"]
        is_held_out = self._held_out(splits["train"])[index]
        if not is_held_out.any() or is_held_out.all():
            raise TooFewImages(
                f"{splits['train'].dataset}: none of the {len(index)} labelled training images is "
                "held out by this protocol; use more of the labels."
            )
        fold = _fold("train", index, is_held_out)
        return Divided(
            train=fold.fit,
            folds=(fold,),
            selected_on="held-out images of the training split, not by patient",
        )

    def _held_out(self, images: LabelledImages) -> NDArray[np.bool_]:
        count = len(images)
        held_out = np.zeros(count, dtype=bool)
        source = random.Random(self.seed)
        if images.dataset == "bach":
            numbers = np.array([_number_in_bach(name, images.classes) for name in images.ids])
            for start, end in self.bach_valid:
                held_out |= (numbers >= start) & (numbers < end)
        elif images.dataset == "mhist":
            held_out = np.array([source.uniform(0, 1) < 0.2 for _ in range(count)])
        else:
            held_out[source.sample(range(count), int(0.2 * count))] = True
        return held_out


def _on_validation(labelled: Labelled) -> Divided:
    """Fits on the training split and chooses on the validation split."""
    train = Part(split="train", index=labelled["train"])
    fold = Fold(fit=(train,), held_out=Part(split="valid", index=labelled["valid"]))
    return Divided(train=fold.fit, folds=(fold,), selected_on="validation split")


def _fold(split: str, index: Index, is_held_out: NDArray[np.bool_]) -> Fold:
    return Fold(
        fit=(Part(split=split, index=index[~is_held_out]),),
        held_out=Part(split=split, index=index[is_held_out]),
    )


def _number_in_bach(name: str, classes: Sequence[str]) -> int:
    """The place of an image, such as `InSitu/is001.tif`, among all 400 in order."""
    *_, of_class, file = name.split("/")
    digits = re.sub(r"\D", "", file)
    return 100 * classes.index(of_class) + int(digits) - 1
