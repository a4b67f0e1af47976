"""Trees as their publishers lay them out load with the true counts, classes and divisions."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from eosin import plugins
from eosin.datasets import bach, break_his, crc, crc_nonorm, csv_table, lc25000, mhist
from eosin.datasets import folder as folder_module
from eosin.datasets import patch_camelyon as pcam
from eosin.datasets._base import LabelledImages, Options, find_dataset, resolve_root
from eosin.errors import InputError
from tests.datasets import trees

TINY = (8, 6)


def counts_of(images: LabelledImages) -> dict[str, int]:
    return Counter(images.classes[label] for label in images.labels)


def load_all(module: ModuleType, root: Path, **options: object) -> dict[str, LabelledImages]:
    given = Options(**options)  # pyright: ignore[reportArgumentType]
    return {split: module.load(root, split, given) for split in module.splits(root, given)}


@pytest.mark.parametrize("name", [n for n in plugins.names("datasets")])
def test_what_is_published_adds_up(name: str) -> None:
    info = plugins.load("datasets", name).INFO
    for split, count in info.counts.items():
        if split in info.class_counts:
            assert sum(info.class_counts[split].values()) == count
    assert all(set(classes) == set(info.classes) for classes in info.class_counts.values())
    for archive in info.archives:
        kind, _, digest = archive.checksum.partition(":")
        assert len(digest) == {"md5": 32, "sha256": 64}[kind] and int(digest, 16)
        assert archive.url.startswith(f"https://{archive.hosts[0]}/") and archive.gives
        assert archive.name.partition("?")[2] == ""


@pytest.mark.parametrize("module", [crc, crc_nonorm, mhist])
def test_scaled_trees_have_their_counts(module: ModuleType, tmp_path: Path) -> None:
    if module is mhist:
        trees.mhist(tmp_path, 0.01, TINY)
    else:
        folder = "NCT-CRC-HE-100K" + ("-NONORM" if module is crc_nonorm else "")
        trees.crc(tmp_path, 0.0005, TINY, folder)
    assert find_dataset(tmp_path) is module
    scale = 0.01 if module is mhist else 0.0005
    loaded = load_all(module, tmp_path)
    assert {split: counts_of(images) for split, images in loaded.items()} == trees.scaled(
        module.INFO.class_counts, scale
    )
    for images in loaded.values():
        assert images.dataset == module.__name__.rpartition(".")[2]
        assert images.classes == module.INFO.classes and images.grouped_by == "image"
        assert images.groups.tolist() == list(images.ids)
        assert images.read(len(images) - 1).shape == (6, 8, 3)
    assert len({images.split_sha256 for images in loaded.values()}) == 1
    assert len({images.manifest_sha256 for images in loaded.values()}) == 2


def test_bach_has_the_division_and_the_patients_of_its_publishers(tmp_path: Path) -> None:
    trees.bach(tmp_path, 1.0, TINY)
    loaded = load_all(bach, tmp_path)
    assert {split: len(images) for split, images in loaded.items()} == bach.INFO.counts
    assert {s: counts_of(images) for s, images in loaded.items()} == bach.INFO.class_counts
    everything = sorted((tmp_path / trees.BACH_PHOTOS).rglob("*.tif"))
    test = [everything[place] for start, end in trees.BACH_TEST for place in range(start, end)]
    assert list(loaded["test"].ids) == [f"{path.parent.name}/{path.name}" for path in test]
    # Every test image is of a known patient, and none of them has images in training.
    assert all(group.startswith("patient ") for group in loaded["test"].groups)
    assert not set(loaded["test"].groups) & set(loaded["train"].groups)
    known = [g for images in loaded.values() for g in images.groups if g.startswith("patient ")]
    assert len(known) == 145 and len(set(known)) == 29
    by_id = dict(zip(loaded["test"].ids, loaded["test"].groups, strict=True))
    assert by_id["Benign/b070.tif"] == by_id["Invasive/iv071.tif"] == "patient 14"
    assert "known" not in loaded["test"].grouped_by and "patient" in loaded["test"].grouped_by


def test_bach_is_the_same_wherever_the_root_is(tmp_path: Path) -> None:
    trees.bach(tmp_path, 0.05, TINY)
    roots = [tmp_path, tmp_path / "ICIAR2018_BACH_Challenge", tmp_path / trees.BACH_PHOTOS]
    assert all(find_dataset(root) is bach for root in roots)
    loaded = [load_all(bach, root) for root in roots]
    for split in ("train", "test"):
        assert len({each[split].manifest_sha256 for each in loaded}) == 1
        assert len({each[split].split_sha256 for each in loaded}) == 1


def test_mhist_keeps_the_order_of_its_annotations(tmp_path: Path) -> None:
    trees.mhist(tmp_path / "mhist", 0.01, TINY)
    lines = (tmp_path / "mhist" / "annotations.csv").read_text().splitlines()[1:]
    (tmp_path / "mhist" / "annotations.csv").write_text(
        "\n".join([",".join(trees.MHIST_COLUMNS), *reversed(lines)])
    )
    test = mhist.load(tmp_path, "test", Options())
    expected = [line.split(",")[0] for line in reversed(lines) if line.endswith("test")]
    assert list(test.ids) == expected
    assert test.classes == ("HP", "SSA")


def test_break_his_is_divided_by_patients_at_one_magnification(tmp_path: Path) -> None:
    trees.break_his(tmp_path)
    assert find_dataset(tmp_path) is break_his
    loaded = load_all(break_his, tmp_path)
    assert sum(map(len, loaded.values())) == 64
    assert {images.classes for images in loaded.values()} == {break_his.INFO.classes}
    assert all("/40X/" in image for images in loaded.values() for image in images.ids)
    assert not set(loaded["train"].groups) & set(loaded["test"].groups)
    # 20000AB and 20000CD are blocks of one patient, and 14-10000 is one in every kind.
    assert {group for images in loaded.values() for group in images.groups} == {
        f"patient 14-{number}000{kind}" for number in (1, 2, 3) for kind in range(4)
    }
    other = load_all(break_his, tmp_path, magnification="100X")
    assert all("/100X/" in image for images in other.values() for image in images.ids)
    with pytest.raises(InputError, match="no images in folders named 400X"):
        break_his.splits(tmp_path, Options(magnification="400X"))


def test_lc25000_is_divided_by_its_source_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees.lc25000(tmp_path / "lung_colon_image_set")
    assert find_dataset(tmp_path) is lc25000
    loaded = load_all(lc25000, tmp_path)
    assert not set(loaded["train"].groups) & set(loaded["test"].groups)
    assert loaded["test"].grouped_by == "source_image in source_images.csv"
    assert capsys.readouterr().err == ""
    # As the plain folder that it also is, so that results of before stay comparable.
    plain = folder_module.load(tmp_path / "lung_colon_image_set", "test", Options())
    assert plain.split_sha256 == loaded["test"].split_sha256


def test_lc25000_without_its_sources_warns_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees.lc25000(tmp_path, sources=False)
    assert load_all(lc25000, tmp_path)["test"].grouped_by == "image"
    assert capsys.readouterr().err.count("A random division leaks") == 1
    load_all(lc25000, tmp_path, group_column="none")


def test_a_csv_of_files_and_labels_is_a_dataset(tmp_path: Path) -> None:
    rows = ["file,label,patient,split"]
    for number in range(12):
        trees.write_image(tmp_path / "images" / f"{number}.png", number, TINY)
        split = ("train", "training", "val", "Test")[number % 4]
        rows.append(f"images/{number}.png,{'ab'[number // 4 % 2]},p{number % 4},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    assert find_dataset(tmp_path) is csv_table
    loaded = load_all(csv_table, tmp_path)
    assert {split: len(images) for split, images in loaded.items()} == {
        "train": 6,
        "valid": 3,
        "test": 3,
    }
    assert loaded["test"].groups.tolist() == ["p3"] * 3
    assert loaded["test"].grouped_by == "patient in labels.csv"
    # Without the column split, it is divided here, whole patients at a time.
    (tmp_path / "labels.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows))
    loaded = load_all(csv_table, tmp_path)
    assert set(loaded) == {"train", "test"}
    assert not set(loaded["train"].groups) & set(loaded["test"].groups)
    assert load_all(csv_table, tmp_path, group_column="none")["test"].grouped_by == "image"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("absent.png,a,p1,train", "line 2: absent.png is not there"),
        ("/etc/hostname,a,p1,train", "line 2: /etc/hostname is no path below"),
        ("../x.png,a,p1,train", "is no path below"),
        ("0.png,,p1,train", "line 2: 0.png has no label"),
        ("0.png,a,,train", "line 2: 0.png has no group"),
        ("0.png,a,p1,tests", "has the split 'tests', not train, valid or test"),
        ("1.png,a,p1,train", "line 3: 1.png stands in a row above already"),
    ],
)
def test_wrong_rows_of_a_csv_are_named(row: str, said: str, tmp_path: Path) -> None:
    lines = ["file,label,patient,split", row]
    for number in range(1, 5):
        trees.write_image(tmp_path / f"{number}.png", number, TINY)
        lines.append(f"{number}.png,{'ab'[number % 2]},q{number},{('train', 'test')[number // 3]}")
    trees.write_image(tmp_path / "0.png", 0, TINY)
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=said):
        csv_table.load(tmp_path, "train", Options())
    assert [each for each in csv_table.verify(tmp_path, Options()) if said[:6] in each.sentence]


def test_labels_that_are_no_dataset_leave_a_folder_a_folder(tmp_path: Path) -> None:
    trees.write_image(tmp_path / "a" / "0.png", 0, TINY)
    for text in ("", "x,y\n1,2\n", "file,patient\na/0.png,p1\n"):
        (tmp_path / "labels.csv").write_text(text)
        assert find_dataset(tmp_path) is folder_module


def test_a_missing_split_is_an_error_for_every_reader(tmp_path: Path) -> None:
    trees.crc(tmp_path, 0.0001, TINY)
    for path in sorted((tmp_path / "CRC-VAL-HE-7K").rglob("*.tif")):
        path.unlink()
    with pytest.raises(InputError, match="no images of the test split"):
        crc.splits(tmp_path, Options())


def test_names_of_installed_data_sets_are_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EOSIN_DATA", str(tmp_path / "data"))
    trees.bach(tmp_path / "data" / "bach", 0.02, TINY)
    assert resolve_root("bach") == tmp_path / "data" / "bach"
    assert resolve_root(Path("bach")) == tmp_path / "data" / "bach"
    assert resolve_root(tmp_path) == tmp_path
    for name in ("crc", "mhist"):
        with pytest.raises(InputError, match=f"{name} is not in .*eosin datasets get {name}"):
            resolve_root(name)
    (tmp_path / "data" / "crc").mkdir()
    with pytest.raises(InputError, match="crc is not in"):
        resolve_root("crc")
    # A path of that name goes before the name, as everywhere.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bach").mkdir()
    assert resolve_root("bach") == Path("bach")
    monkeypatch.delenv("EOSIN_DATA")
    (tmp_path / "bach").rmdir()
    assert resolve_root("bach") == Path("data/bach")


def test_real_samples_of_crc_load(shared_data: Path) -> None:
    root = shared_data / "nct_crc_he"
    assert find_dataset(root) is crc
    loaded = load_all(crc, root)
    assert {split: len(images) for split, images in loaded.items()} == {"train": 9, "test": 1}
    assert loaded["train"].read(0).shape == (224, 224, 3)
    kinds = {finding.kind for finding in crc.verify(root, Options())}
    assert kinds == {"count"}


def test_real_lc25000_is_recognised(shared_data: Path) -> None:
    root = shared_data / "lc25000"
    assert find_dataset(root) is lc25000
    assert lc25000.splits(root, Options()) == ("train", "test")


def test_real_patch_camelyon_is_verified(shared_data: Path) -> None:
    findings = pcam.verify(shared_data / "pcam", Options())
    assert {finding.kind for finding in findings} <= {"count", "duplicate", "stray"}
    assert [f.where for f in findings if f.kind == "count"][:3] == [
        "the train split",
        "the valid split",
        "the test split",
    ]


@pytest.mark.slow
def test_mhist_of_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.mhist(tmp_path)
    loaded = load_all(mhist, tmp_path)
    assert {s: counts_of(images) for s, images in loaded.items()} == mhist.INFO.class_counts
    assert mhist.verify(tmp_path, Options()) == []


@pytest.mark.slow
def test_crc_of_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.crc(tmp_path, 1.0, (4, 4))
    monkeypatch.setattr(crc, "INFO", replace(crc.INFO, image_px=(4, 4)))
    loaded = load_all(crc, tmp_path)
    assert {s: counts_of(images) for s, images in loaded.items()} == crc.INFO.class_counts
    assert crc.verify(tmp_path, Options()) == []
    assert np.bincount(loaded["test"].labels).sum() == 7_180
