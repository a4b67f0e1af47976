import random

import numpy as np
import pytest
import torch

from eosin.datasets._base import LabelledImages
from eosin.errors import InputError
from eosin.protocols._division import (
    Divided,
    Division,
    NoSelection,
    OnReported,
    RandomTenth,
    ThunderSplits,
    WithinTraining,
)

CLASSES = ("Benign", "InSitu", "Invasive", "Normal")


def images(
    ids: list[str], labels: np.ndarray, split: str = "train", dataset: str = "blobs", per_group=1
) -> LabelledImages:
    return LabelledImages(
        dataset=dataset,
        split=split,
        ids=tuple(ids),
        labels=labels.astype(np.int64),
        groups=np.array([f"{split} {number // per_group}" for number in range(len(ids))]),
        grouped_by="patient",
        classes=CLASSES,
        reader=lambda index: np.zeros((8, 8, 3), np.uint8),
        manifest_sha256=split,
        split_sha256="division",
    )


def blobs(*, with_valid: bool, dataset: str = "blobs", count: int = 120) -> dict:
    sizes = {"train": count, "test": 60} | ({"valid": 30} if with_valid else {})
    return {
        split: images(
            [f"{split}/{number}" for number in range(size)],
            np.arange(size) % 4,
            split,
            dataset,
            per_group=8,
        )
        for split, size in sizes.items()
    }


def every_label(splits: dict) -> dict:
    return {name: np.arange(len(each)) for name, each in splits.items() if name != "test"}


def divided(rule: Division, splits: dict, seed: int = 0) -> Divided:
    return rule.divide(splits, every_label(splits), seed)


def names(parts, splits: dict) -> set[str]:
    return {splits[part.split].ids[number] for part in parts for number in part.index.tolist()}


RULES = [WithinTraining(), NoSelection(), RandomTenth(), ThunderSplits()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("with_valid", [False, True])
def test_none_but_eva_and_dinov2_linear_look_at_the_test_split(
    rule: Division, with_valid: bool
) -> None:
    splits = blobs(with_valid=with_valid)
    found = divided(rule, splits)
    used = [*found.train, *[part for fold in found.folds for part in (*fold.fit, fold.held_out)]]
    assert all(part.split != "test" for part in used)
    for fold in found.folds:
        assert not names(fold.fit, splits) & names([fold.held_out], splits)


def test_folds_keep_groups_together_and_hold_out_each_image_once() -> None:
    splits = blobs(with_valid=False)
    found = divided(WithinTraining(folds=5), splits)
    assert len(found.folds) == 5 and "5 folds" in found.selected_on
    held_out = [fold.held_out.index for fold in found.folds]
    assert sorted(np.concatenate(held_out)) == list(range(120))
    for fold in found.folds:
        (fit,) = fold.fit
        groups = splits["train"].groups
        assert not set(groups[fit.index]) & set(groups[fold.held_out.index])


def test_a_validation_split_is_chosen_on_where_there_is_one() -> None:
    splits = blobs(with_valid=True)
    for rule in (WithinTraining(), OnReported(), RandomTenth(), ThunderSplits()):
        found = divided(rule, splits)
        assert [fold.held_out.split for fold in found.folds] == ["valid"]
    # What the source fits on in the end differs.
    assert {part.split for part in divided(RandomTenth(), splits).train} == {"train", "valid"}
    assert {part.split for part in divided(NoSelection(), splits).train} == {"train", "valid"}
    assert {part.split for part in divided(WithinTraining(), splits).train} == {"train"}


def test_eva_chooses_on_the_test_split_and_says_so() -> None:
    found = divided(OnReported(), blobs(with_valid=False))
    assert [fold.held_out.split for fold in found.folds] == ["test"]
    assert len(found.folds[0].held_out.index) == 60
    assert "test split" in found.selected_on


def test_dinov2_holds_out_the_head_of_torchs_permutation() -> None:
    found = divided(RandomTenth(), blobs(with_valid=False))
    torch.manual_seed(0)
    expected = torch.randperm(120)[:12].numpy()
    assert found.folds[0].held_out.index.tolist() == expected.tolist()
    assert sum(len(part.index) for part in found.train) == 120


def test_only_the_labels_that_may_be_used_are_used() -> None:
    splits = blobs(with_valid=True)
    labelled = {"train": np.arange(0, 120, 3), "valid": np.arange(0, 30, 3)}
    for rule in (*RULES, OnReported()):
        found = rule.divide(splits, labelled, 0)
        for part in [*found.train, *[fold.held_out for fold in found.folds]]:
            assert set(part.index) <= set(labelled[part.split])


def test_thunders_division_of_bach() -> None:
    prefixes = ("b", "is", "iv", "n")
    ids = [
        f"{name}/{prefix}{number:03}.tif"
        for name, prefix in zip(CLASSES, prefixes, strict=True)
        for number in range(1, 101)
    ]
    labels = np.repeat(np.arange(4), 100)
    # eva's test images by index, which THUNDER's are too.
    ranges = ((41, 59), (60, 90), (139, 169), (240, 258), (260, 273), (345, 368))
    test = np.concatenate([np.arange(start, end) for start, end in ranges])
    train = np.setdiff1d(np.arange(400), test)
    splits = {
        name: images([ids[each] for each in index], labels[index], name, "bach")
        for name, index in (("train", train), ("test", test))
    }
    found = divided(ThunderSplits(), splits)
    (fold,) = found.folds
    assert (len(fold.fit[0].index), len(fold.held_out.index), len(test)) == (218, 50, 132)
    held_out = names([fold.held_out], splits)
    assert {"Benign/b016.tif", "Normal/n081.tif"} <= held_out
    assert "Benign/b015.tif" not in held_out and "Benign/b026.tif" not in held_out


def test_thunders_division_of_mhist_and_crc_is_that_of_its_random_numbers() -> None:
    mhist = divided(ThunderSplits(), blobs(with_valid=False, dataset="mhist", count=2175))
    (fold,) = mhist.folds
    assert (len(fold.fit[0].index), len(fold.held_out.index)) == (1743, 432)
    crc = divided(ThunderSplits(), blobs(with_valid=False, dataset="crc", count=1000))
    random.seed(0)
    assert set(crc.folds[0].held_out.index) == set(random.sample(range(1000), 200))


def test_too_few_images_are_refused_by_name() -> None:
    splits = blobs(with_valid=False)
    few = {"train": np.arange(4)}
    for rule in (WithinTraining(), RandomTenth()):
        with pytest.raises(InputError, match="blobs"):
            rule.divide(splits, few, 0)
