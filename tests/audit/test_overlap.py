import numpy as np
import pytest

from eosin.audit import overlap
from eosin.audit.overlap import Slide
from eosin.datasets._base import LabelledImages


def images(ids: list[str], groups: list[str] | None = None) -> LabelledImages:
    return LabelledImages(
        dataset="d",
        split="test",
        ids=tuple(ids),
        labels=np.zeros(len(ids), np.int64),
        groups=np.array(groups or ids),
        grouped_by="patient",
        classes=("a", "b"),
        reader=lambda index: np.zeros((4, 4, 3), np.uint8),
        manifest_sha256="",
        split_sha256="",
    )


@pytest.mark.parametrize(
    ("text", "patient"),
    [
        ("a/TCGA-CR-7395-01A-01-TS1.svs", "TCGA-CR-7395"),
        ("tcga-cr-7395-01a-01-ts1_12_7.png", "TCGA-CR-7395"),
        ("blk-ABCD-TCGA-AA-3514-01Z-00-DX1.tif", "TCGA-AA-3514"),
        ("MSI/TCGA-AA-3514", "TCGA-AA-3514"),
        ("XTCGA-AA-3514", None),
        ("TCGA-AA-35145", None),
        ("TCGA_AA_3514", None),
        ("TCGA-AA", None),
    ],
)
def test_the_patient_of_a_barcode(text: str, patient: str | None) -> None:
    assert overlap.patient_of(text) == patient


def test_patients_shared_by_two_sides_come_with_examples() -> None:
    ours = ["a/TCGA-AA-0001-01A.svs", "a/TCGA-AA-0002-01A.svs", "other"]
    theirs = ["n/TCGA-AA-0002-DX1-4.png", "n/TCGA-AA-0003-DX1-4.png"]
    (shared,) = overlap.shared_patients(ours, theirs)
    assert (shared.name, shared.first, shared.second) == ("TCGA-AA-0002", ours[1], theirs[0])


def test_groups_on_both_sides_are_found() -> None:
    shared = overlap.shared_groups(images(["x", "y"], ["p1", "p2"]), images(["z"], ["p2"]))
    assert [each.name for each in shared] == ["p2"]


def test_slides_of_a_store_are_found_by_group_folder_or_file_name() -> None:
    slides = [
        Slide(slide_id="S12-0001f00d", path="in/S12.svs", patient="case 7"),
        Slide(slide_id="train-1", path="in/train.svs", patient=None),
    ]
    found = overlap.slides_in(slides, images(["a/S12_4_5.png", "b/q.png"], ["g", "Case 7"]))
    assert [each.name for each in found] == ["case 7"]
    long = [Slide(slide_id="x", path="in/slide12.svs", patient=None)]
    for image in ("a/slide12_4_5.png", "SLIDE12/4.png", "a/slide12.png", "a/slide12-x.png"):
        assert [each.name for each in overlap.slides_in(long, images([image]))] == ["slide12"]
    for image in ("a/slide123_4.png", "a/myslide12.png", "train/x.png"):
        assert overlap.slides_in([*long, *slides], images([image])) == []
