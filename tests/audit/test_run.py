"""`eosin audit` as a whole, on drawn and on real images."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eosin.audit import comparing, scores
from eosin.audit.config import Config
from eosin.audit.duplicates import CORRELATION
from eosin.audit.probing import Sample
from eosin.audit.run import Report, audit
from eosin.audit.thumbnails import contrast, shrink
from eosin.commands.audit import COMMAND
from eosin.datasets import folder
from eosin.datasets._base import LabelledImages, Options
from eosin.errors import InputError, UsageError
from eosin.store.tile_store import TileStore
from tests.store.small_stores import make_store

from .conftest import Draw, Picture

Write = Callable[[Path, Picture], None]


def coloured(image: Picture, of_class: int) -> Picture:
    return np.clip(image.astype(int) - np.array([0, 40, 0]) * of_class, 0, 255).astype(np.uint8)


@pytest.fixture
def leaky(tmp_path: Path, draw: Draw, write: Write) -> Path:
    """20 training and 10 test images of two colours, of which two test images are copies."""
    root = tmp_path / "leaky"
    for split, count, first in (("train", 10, 0), ("test", 5, 50)):
        for of_class, name in enumerate(("benign", "tumour")):
            for number in range(count):
                image = coloured(draw(first + number + 20 * of_class), of_class)
                write(root / split / name / f"{split}_{number}.png", image)
    write(root / "test/benign/test_3.png", np.ascontiguousarray(draw(4)[::-1]))
    write(root / "test/tumour/test_1.jpg", np.rot90(coloured(draw(25), 1)))
    return root


def of_kind(report: Report, kind: str) -> list[str]:
    return [finding.sentence for finding in report.findings if finding.kind == kind]


def test_copies_in_the_training_split_are_found_counted_and_shown(
    leaky: Path, tmp_path: Path
) -> None:
    report = audit(Config(on=(leaky,), out=tmp_path / "out", encoder="colour_histogram"))
    (sentence,) = of_kind(report, "near_duplicates")
    assert "2 of 11 test images (18.2%)" in sentence
    written = json.loads(report.audit.read_text())
    pairs = written["datasets"]["leaky"]["pairs"]
    assert [(pair["image"], pair["like"]) for pair in pairs] == [
        ("test/benign/test_3.png", "train/benign/train_4.png"),
        ("test/tumour/test_1.jpg", "train/tumour/train_5.png"),
    ]
    assert len(written["datasets"]["leaky"]["groups"]) == 2
    assert {"created", "versions"} <= written["provenance"].keys()
    (sheet,) = report.sheets
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert "without these 2 training images" in of_kind(report, "duplicate_leak")[0]
    assert "cannot be measured" in of_kind(report, "random_split")[0]
    assert len(report.problems) == 1


def test_a_clean_dataset_gives_no_problem_and_no_sheet(
    leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (leaky / "test/benign/test_3.png").unlink()
    (leaky / "test/tumour/test_1.jpg").unlink()
    outcome = COMMAND.run(["--on", str(leaky), "-o", str(tmp_path / "out"), "--no-scores"])
    assert outcome.exit_code == 0
    assert outcome.facts["problems"] == 0 and outcome.facts["sheets"] == []
    assert "no test image was found to be a near-duplicate" in outcome.text
    assert "0 findings to look into" in outcome.text
    assert json.loads(json.dumps(outcome.facts)) == outcome.facts
    assert "20/20 images" in capsys.readouterr().err


def test_colour_that_explains_the_classes_is_said(leaky: Path, tmp_path: Path) -> None:
    config = Config(on=(leaky,), out=tmp_path / "out", encoder="random/resnet10t")
    report = audit(replace(config, embedding=replace(config.embedding, batch_size=8)))
    (found,) = [each for each in report.findings if each.kind == "colour"]
    assert found.facts["histogram"]["value"] > 0.85
    assert found.facts["chance"] == 0.5
    assert "a colour histogram has balanced accuracy" in found.sentence


def test_tiles_of_a_store_and_its_slides_are_looked_for(
    tmp_path: Path, draw: Draw, write: Write
) -> None:
    store = make_store(tmp_path / "store", {"slide12": 4, "slide13": 3})
    tiles = TileStore(store)
    tile = tiles.read(1)
    assert contrast(shrink(tile)) > 3
    root = tmp_path / "data"
    for split in ("train", "test"):
        for name in ("a", "b"):
            for number in range(3):
                seed = 1000 * (split == "test") + 100 * (name == "b") + number
                write(root / split / name / f"{number}.png", draw(seed))
    write(root / "test/a" / "slide12_TCGA-AA-0001.png", tile[:, ::-1])
    write(root / "train/a" / "TCGA-AA-0001-x.png", draw(77))
    out = tmp_path / "out"
    report = audit(Config(on=(root,), store=(str(store),), out=out, scores=False))
    sentences = [one for one in of_kind(report, "near_duplicates") if str(store) in one]
    assert len(sentences) == 1
    assert sentences[0].startswith("data: 1 of 7 test images")
    assert f"{store} and in test: slide12" in " ".join(of_kind(report, "overlap"))
    patients = [one for one in of_kind(report, "overlap") if "TCGA patients" in one]
    assert any("1 TCGA patients are in train and in test: TCGA-AA-0001" in one for one in patients)


def test_an_unreadable_image_is_named_and_the_audit_goes_on(leaky: Path, tmp_path: Path) -> None:
    (leaky / "train/benign/train_0.png").write_bytes(b"no image")
    report = audit(Config(on=(leaky,), out=tmp_path / "out", scores=False))
    (sentence,) = of_kind(report, "unreadable")
    assert "1 of 20 images" in sentence and "train/benign/train_0.png" in sentence
    assert "2 of 11 test images" in of_kind(report, "near_duplicates")[0]


def test_what_makes_no_sense_is_refused(
    leaky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("EOSIN_DATA", str(tmp_path / "none"))
    with pytest.raises(InputError, match="eosin datasets get mhist"):
        audit(Config(on=(Path("mhist"),), out=out))
    with pytest.raises(InputError, match="does not exist"):
        audit(Config(on=(tmp_path / "nowhere",), out=out))
    with pytest.raises(InputError, match="nowhere"):
        audit(Config(on=(leaky,), store=(str(tmp_path / "nowhere"),), out=out))
    assert not out.exists()
    for wrong in (
        {"on": ()},
        {"on": (leaky, leaky)},
        {"on": (leaky,), "correlation": 1.5},
        {"on": (leaky,), "probe_images": 1},
        {"on": (leaky,), "seed": -1},
        {"on": (leaky,), "encoder": "colour_histogram", "scores": False},
    ):
        with pytest.raises(UsageError):
            Config(out=out, **wrong)
    with pytest.raises(InputError, match="no_such_encoder"):
        audit(Config(on=(leaky,), out=out, encoder="no_such_encoder"))
    assert not (out / "audit.json").exists()


def features_of(images: LabelledImages, rows: np.ndarray) -> Sample:
    """Colour histograms and 16-px thumbnails, as a plain encoder that sees what is where."""
    made: list[np.ndarray] = []
    for row in rows.tolist():
        image = images.read(row)
        counts, _ = np.histogramdd(image.reshape(-1, 3), bins=4, range=[(0, 256)] * 3)
        blocks = image.reshape(16, 14, 16, 14, 3).mean((1, 3)).ravel()
        made.append(np.concatenate([np.sqrt(counts.ravel() / image[..., 0].size), blocks / 255]))
    return Sample(
        ids=np.array(images.ids)[rows],
        features=np.array(made, np.float32),
        labels=images.labels[rows],
        groups=images.groups[rows],
    )


@pytest.mark.slow
def test_the_leak_of_a_random_split_of_lc25000_is_shown(shared_data: Path) -> None:
    root = shared_data / "lc25000"
    grouped = folder.load(root, "train", Options())
    drawn = scores.draw(grouped, 1400, 0)
    sample = features_of(grouped, drawn.rows)
    leak = scores.random_split_leak(sample, 3, len(grouped.classes), 0)
    assert leak is not None
    assert leak.added.low > 0
    # The same images divided at random hold copies on both sides, and by source image they do not.
    groups = dict(zip(sample.ids.tolist(), sample.groups.tolist(), strict=True))
    rng = np.random.default_rng(0)
    chosen = rng.permutation(drawn.rows)[:450]
    halves = {"train": np.sort(chosen[:300]), "test": np.sort(chosen[300:])}
    splits = {name: _subset(grouped, name, rows) for name, rows in halves.items()}
    judged, _ = comparing.look_at("lc25000", splits)
    (found,), _ = comparing.compare_splits(judged, splits["train"], CORRELATION)
    with_copy = {groups[name] for name in splits["train"].ids}
    true = [name for name in splits["test"].ids if groups[name] in with_copy]
    hit = {splits["test"].ids[pair.query] for pair in found.pairs}
    assert len(true) > 30
    assert len(hit & set(true)) > 0.85 * len(true)
    assert len(hit - set(true)) <= 2


def _subset(images: LabelledImages, split: str, rows: np.ndarray) -> LabelledImages:
    return replace(
        images,
        split=split,
        ids=tuple(images.ids[row] for row in rows.tolist()),
        labels=images.labels[rows],
        groups=images.groups[rows],
        reader=lambda index: images.read(int(rows[index])),
    )


def test_patches_of_glass_with_a_few_edges_are_no_copies(shared_data: Path, tmp_path: Path) -> None:
    report = audit(Config(on=(shared_data / "pcam",), out=tmp_path / "out", scores=False))
    # By eye, none of the likest pairs of this subset is of the same tissue.
    assert [each for each in report.findings if each.is_problem] == []
    assert len(of_kind(report, "near_constant")) == 3
