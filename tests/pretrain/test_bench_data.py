"""What `eosin bench-data` measures, and that no estimate looks like a measurement."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tyro
from PIL import Image

from eosin.errors import InputError, UsageError
from eosin.methods import barlow_twins
from eosin.pretrain.bench_data import Config, Feeding, Report, measure_feeding
from eosin.pretrain.bench_training import Training, count_gflop, estimate_training
from eosin.pretrain.config import Config as PretrainConfig

SMALL = PretrainConfig(
    method=barlow_twins.Config(view_px=32, projector=(16, 16), optimizer="adamw"),
    encoder="resnet10t",
)
FEEDINGS = tuple(
    Feeding(workers=workers, tiles_per_s=rate, views_per_s=2 * rate, cores=1.0, decoded_per_s=400.0)
    for workers, rate in ((1, 100.0), (2, 200.0))
)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).save(folder / f"{index}.png")
    return folder


def report(training=None):
    return Report(
        recipe="small",
        feedings=FEEDINGS,
        training=training,
        gflop_per_tile=50.0,
        gpu_share=0.4,
        estimates=estimate_training(50.0, 0.4, 25.0),
    )


def test_everything_is_measured_and_fits_together(tiles, capsys):
    config = Config(data=(str(tiles),), recipe="small", workers=(1, 2), seconds=0.05)
    found = measure_feeding(replace(config, train=True, train_batch_size=8), SMALL)
    told = capsys.readouterr().err
    assert [feeding.workers for feeding in found.feedings] == [1, 2]
    for feeding in found.feedings:
        assert feeding.tiles_per_s > 0
        assert feeding.views_per_s == pytest.approx(2 * feeding.tiles_per_s)
        assert feeding.decoded_per_s > 0
        assert feeding.cores > 0
        assert str(feeding) in told
    assert found.training is not None
    assert found.training.batch_size == 8
    assert found.training.tiles_per_s > 0
    assert [each.gpu for each in found.estimates] == ["A100", "H100 SXM"]
    json.dumps(asdict(found))


def test_without_being_asked_no_cpu_is_trained_on(tiles, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = Config(data=(str(tiles),), recipe="small", workers=(1,), seconds=0.01)
    found = measure_feeding(config, SMALL)
    assert found.training is None
    assert "trains" not in str(found).split("Estimated, not measured")[0]


def test_the_report_keeps_measurements_and_estimates_apart():
    text = str(report(Training(device="this CPU", batch_size=64, tiles_per_s=80.0)))
    measured, estimated = text.split("Estimated, not measured: ")
    assert "2 threads: 200 tiles/s, 400 views/s, 1.0 cores busy; 50% of decoding alone" in measured
    assert "feeds 200 tiles/s with --workers 2" in measured
    assert "this CPU trains 80.0 tiles/s in batches of 64; the machine feeds 2.5 times" in measured
    assert "50.0 GFLOP" in estimated
    assert "40% of its peak" in estimated
    # 25 TFLOP/s * 0.4 / 50 GFLOP
    assert "your GPU (25 TFLOP/s): 200 tiles/s; the machine would feed 1 of them" in estimated


def test_operations_are_counted_as_the_formula_says():
    # What the encoder takes is the same in both, and the loss of two tiles is next to nothing.
    wide, narrow = (
        PretrainConfig(
            method=barlow_twins.Config(view_px=32, projector=(width,)), encoder="resnet10t"
        )
        for width in (4096, 2048)
    )
    views, passes, per_product = 2, 3, 2  # forward and both gradients; multiply and add
    projector = views * passes * per_product * 512 * (4096 - 2048)
    counted = (count_gflop(wide) - count_gflop(narrow)) * 1e9
    assert counted == pytest.approx(projector, rel=0.005)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ()}, "No data to read"),
        ({"workers": (2, 0)}, r"--workers \(2, 0\): each must be 1 or more"),
        ({"seconds": 0.0}, r"--seconds is 0.0; it must be above 0"),
        ({"train_batch_size": 1}, "--train-batch-size is 1; it must be 2 or more"),
        ({"gpu_tflops": -1.0}, r"--gpu-tflops is -1.0; it must be above 0"),
        ({"gpu_share": 1.5}, r"--gpu-share is 1.5; it must be above 0, at most 1"),
    ],
)
def test_senseless_options_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Config(**{"data": ("tiles",), "recipe": "small", **changes})


def test_missing_data_is_one_clear_error(tmp_path):
    config = Config(data=(str(tmp_path / "none"),), recipe="small")
    with pytest.raises(InputError, match="none does not exist"):
        measure_feeding(config, SMALL)


def test_the_fields_are_options():
    words = ["a", "b", "--recipe", "dino", "--workers", "1", "4", "--gpu-tflops", "165"]
    config = tyro.cli(Config, args=words)
    assert config.data == ("a", "b")
    assert config.workers == (1, 4)
    assert config.gpu_tflops == 165.0
