"""Scores on labelled images: of the right splits, repeatable, and without a trace in the run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eosin.datasets import folder
from eosin.datasets._base import LabelledImages, Options
from eosin.encoders import Encoder, build_encoder
from eosin.errors import InputError, UsageError
from eosin.pretrain.labelled import choose_stratified, load_labelled, score_labelled

COLOURS = {"pink": (230, 120, 180), "violet": (90, 40, 150), "white": (245, 245, 245)}


def write(root: Path, top: str, count: int, classes: Sequence[str] = tuple(COLOURS)) -> None:
    """Images that a colour tells apart, and, with few of them, only a colour."""
    rng = np.random.default_rng(len(top))
    for name in classes:
        for number in range(count):
            noise = rng.integers(-9, 10, (20, 24, 3))
            pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
            path = root / top / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder("resnet10t", input_px=32, seed=0).train()


def forbid_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    load = folder.load

    def guarded(root: Path, split: str, options: Options) -> LabelledImages:
        assert split != "test", "the test split is read"
        return load(root, split, options)

    monkeypatch.setattr(folder, "load", guarded)


def test_it_scores_on_the_validation_split_and_never_on_the_test_split(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_test_split(monkeypatch)
    for top, count in (("train", 25), ("valid", 5), ("test", 4)):
        write(tmp_path, top, count)
    found = load_labelled(tmp_path, encoder)
    assert found.fitted.tiles.shape == (75, 3, 32, 32)
    assert np.bincount(found.scored.labels).tolist() == [5, 5, 5]
    assert "scored on 15 of the validation split" in str(found)
    scores = score_labelled(encoder, found)
    assert scores == {"knn": 1.0, "knn_balanced": 1.0, "linear": 1.0}


def test_without_a_validation_split_whole_groups_are_held_out(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_test_split(monkeypatch)
    write(tmp_path, "", 20)
    rows = [f"{name}/{i}.png,patient {i % 10}" for name in COLOURS for i in range(20)]
    (tmp_path / "groups.csv").write_text("\n".join(["file,patient", *rows]))
    found = load_labelled(tmp_path, encoder)
    assert "held out by patient in groups.csv" in str(found)
    train = folder.load(tmp_path, "train", Options())
    # Two images of each class have one patient, so that parts of whole groups are even.
    assert len(found.fitted.labels) + len(found.scored.labels) == len(train)
    assert all(count % 2 == 0 for count in np.bincount(found.scored.labels))


def test_scores_leave_no_trace_and_repeat(tmp_path: Path, encoder: Encoder) -> None:
    for top in ("train", "valid", "test"):
        write(tmp_path, top, 8)
    np.random.seed(0)
    torch.manual_seed(0)
    numpy_before, torch_before = np.random.get_state()[1].tolist(), torch.get_rng_state()  # pyright: ignore
    weights = encoder.weights_sha256()
    found = load_labelled(tmp_path, encoder, most_images=9)
    scores = score_labelled(encoder, found)
    assert score_labelled(encoder, load_labelled(tmp_path, encoder, most_images=9)) == scores
    assert np.random.get_state()[1].tolist() == numpy_before  # pyright: ignore
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert encoder.weights_sha256() == weights and encoder.training
    assert np.bincount(found.fitted.labels).tolist() == [3, 3, 3]


def test_embeddings_that_are_not_finite_have_no_score(tmp_path: Path) -> None:
    for top in ("train", "valid", "test"):
        write(tmp_path, top, 3)
    broken = build_encoder("resnet10t", input_px=32, seed=0)
    with torch.no_grad():
        broken.model.conv1[0].weight.fill_(float("nan"))  # pyright: ignore
    assert score_labelled(broken, load_labelled(tmp_path, broken)) == {}


def test_what_cannot_be_used_is_refused_before_training(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"--monitor-on: .*absent does not exist"):
        load_labelled(tmp_path / "absent", encoder)
    write(tmp_path / "one", "", 3, ["pink"])
    with pytest.raises(InputError, match=r"--monitor-on: .*1 class of images found"):
        load_labelled(tmp_path / "one", encoder)
    write(tmp_path / "few", "", 2)
    with pytest.raises(InputError, match=r"--monitor-on: .*few cannot be scored on: 3 of its 3"):
        load_labelled(tmp_path / "few", encoder)
    for top in ("train", "valid", "test"):
        write(tmp_path / "damaged", top, 3)
    (tmp_path / "damaged" / "valid" / "pink" / "1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"--monitor-on: .*pink/1\.png cannot be read"):
        load_labelled(tmp_path / "damaged", encoder)
    with pytest.raises(UsageError, match="give 2 or more"):
        load_labelled(tmp_path / "damaged", encoder, most_images=1)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=120),
    most=st.integers(5, 80),
    seed=st.integers(0, 5),
)
def test_a_choice_keeps_every_class_in_proportion(labels: list[int], most: int, seed: int) -> None:
    array = np.array(labels, dtype=np.int64)
    chosen = choose_stratified(array, most, seed)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == min(most, len(array))
    assert chosen.tolist() == choose_stratified(array, most, seed).tolist()
    for each in np.unique(array):
        share = (array == each).sum() * len(chosen) / len(array)
        assert max(1, share - 2) <= (array[chosen] == each).sum() <= share + len(set(labels))
