"""Pre-training runs: exact resume, honest folders, and encoders that bare timm loads."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from eosin import plugins, recipes
from eosin.engine import distributed
from eosin.engine.step import Stepper
from eosin.engine.trainable import Batch, Observer
from eosin.errors import InputError, UsageError
from eosin.images import stain
from eosin.methods import barlow_twins, dino, moco_v2, swav
from eosin.methods._base import Plan
from eosin.pretrain.config import Config, preset_config
from eosin.pretrain.record import provenance
from eosin.pretrain.run import plan_pretraining, pretrain_encoder
from eosin.provenance import plain
from eosin.weights import export_encoder, load_encoder
from tests.ranks import run_on_ranks

SMALL = {
    "barlow_twins": Config(
        method=barlow_twins.Config(view_px=32, projector=(16, 16), optimizer="adamw"),
        encoder="resnet10t",
    ),
    "dino": Config(
        method=dino.Config(
            global_px=32, local_px=16, local_crops=2, out_dim=32, hidden_dim=16, bottleneck_dim=8
        ),
        encoder="timm/test_vit",
    ),
    "moco_v2": Config(
        method=moco_v2.Config(view_px=32, dim=8, queue=24, bn_splits=2),
        encoder="timm/test_resnet",
    ),
    "swav": Config(
        method=swav.Config(
            global_px=32, local_px=16, local_crops=2, hidden_dim=16, dim=8, prototypes=12
        ),
        encoder="timm/test_resnet",
    ),
}
TIMINGS = {"tiles_per_s", "data_wait"}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    for index in range(20):
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        (folder / "deep").mkdir(exist_ok=True)
        Image.fromarray(pixels).resize((48, 48)).save(folder / "deep" / f"{index}.png")
    return folder


def test_every_method_is_covered() -> None:
    assert sorted(SMALL) == plugins.names("methods")


def config(method: str, tiles: Path, out: Path) -> Config:
    return replace(
        SMALL[method],
        data=(tiles,),
        out=out,
        batch_size=4,
        epochs=3,
        workers=1,
        checkpoint_every=4,
        log_every=1,
    )


def log(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMINGS} for line in lines]


def start(method: str, tiles: Path, out: Path) -> subprocess.Popen[str]:
    """The same run in a process of its own, which can be killed."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from test_run import config; import eosin.pretrain.run as r;"
        "from eosin.errors import InputError\n"
        "try: r.pretrain_encoder(config(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))\n"
        "except InputError as error: print(error, file=sys.stderr); sys.exit(error.exit_code)\n"
    )
    arguments = [str(Path(__file__).parent), method, str(tiles), str(out)]
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_update(out: Path, update: int) -> None:
    deadline = time.monotonic() + 120
    while not (out / "log.jsonl").is_file() or len(log(out)) < update:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)


# MoCo v2 and DINO are killed with two processes below; Barlow Twins keeps nothing else.
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[] if name == "swav" else [pytest.mark.slow])
        for name in sorted(SMALL)
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(method: str, tiles: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    pretrain_encoder(config(method, tiles, whole))
    last = random.randint(1, 12)
    process = start(method, tiles, killed)
    wait_for_update(killed, last)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    pretrain_encoder(replace(config(method, tiles, killed), workers=random.choice([0, 1, 3])))
    weights = [(out / "encoder" / "model.safetensors").read_bytes() for out in (whole, killed)]
    assert weights[0] == weights[1], f"killed after update {last}"
    assert log(whole) == log(killed)
    assert [line["update"] for line in log(killed)] == list(range(1, 16))


def test_a_stopped_run_saves_and_says_how_to_go_on(tiles: Path, tmp_path: Path) -> None:
    process = start("barlow_twins", tiles, tmp_path / "run")
    wait_for_update(tmp_path / "run", 2)
    os.killpg(process.pid, signal.SIGTERM)  # the whole group, as a cluster's scheduler does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "the same command resumes" in errors
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_workers_change_nothing(tiles: Path, tmp_path: Path) -> None:
    folders = []
    for workers in (0, 2):
        settings = config("barlow_twins", tiles, tmp_path / str(workers) / "run")
        folders.append(pretrain_encoder(replace(settings, workers=workers, epochs=1)))
    contents = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("method", sorted(SMALL))
def test_the_encoder_loads_in_bare_timm(method: str, tiles: Path, tmp_path: Path) -> None:
    folder = pretrain_encoder(replace(config(method, tiles, tmp_path / "run"), epochs=0.2))
    bare = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    ours = load_encoder(folder)
    images = torch.randn(2, 3, ours.input_px, ours.input_px)
    assert torch.equal(bare(images), ours.embed(images))
    assert ours.name == "run"
    assert ours.card.provenance["method"] == method


@pytest.mark.parametrize(
    ("method", "name", "stem_stride"),
    [("dino", "timm/test_vit", None), ("moco_v2", "resnet10t", None), ("moco_v2", "resnet10t", 1)],
)
def test_pretraining_goes_on_from_an_encoder(
    method: str, name: str, stem_stride: int | None, tiles: Path, tmp_path: Path
) -> None:
    first = load_encoder(f"random/{name}", input_px=32, seed=3)
    first = first if stem_stride is None else first.with_stem_stride(stem_stride)
    export_encoder(first, tmp_path / "first", {})
    settings = replace(config(method, tiles, tmp_path / "run"), init=str(tmp_path / "first"))
    # No update moves anything at a learning rate of 0, so the start is what comes out.
    still = replace(settings.method, lr_per_256=0.0)  # pyright: ignore[reportCallIssue]
    if method == "dino":
        still = replace(still, min_lr=0.0)  # pyright: ignore[reportCallIssue]
    encoder = load_encoder(pretrain_encoder(replace(settings, method=still, epochs=0.2)))
    assert encoder.feature_strides == first.feature_strides
    parameters = dict(encoder.named_parameters())
    assert all(torch.equal(parameters[key], each) for key, each in first.named_parameters())


class NoObserver(Observer):
    def __init__(self, *_: object) -> None: ...

    def close(self) -> None: ...


def test_monitoring_leaves_no_trace(
    tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = pretrain_encoder(replace(config("dino", tiles, tmp_path / "a" / "run"), epochs=1))
    monkeypatch.setattr("eosin.pretrain.run.RunObserver", NoObserver)
    alone = pretrain_encoder(replace(config("dino", tiles, tmp_path / "b" / "run"), epochs=1))
    contents = [(folder / "model.safetensors").read_bytes() for folder in (watched, alone)]
    assert contents[0] == contents[1]


def test_fewer_tiles_than_a_batch_names_the_mend(tiles: Path, tmp_path: Path) -> None:
    settings = replace(config("dino", tiles, tmp_path / "run"), batch_size=64)
    with pytest.raises(InputError, match=r"20 tiles.*64.*--batch-size"):
        pretrain_encoder(settings)
    assert not (tmp_path / "run").exists()


def test_another_config_is_refused_in_a_used_folder(tiles: Path, tmp_path: Path) -> None:
    settings = replace(config("barlow_twins", tiles, tmp_path / "run"), epochs=0.2)
    pretrain_encoder(settings)
    before = (tmp_path / "run" / "encoder" / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"differs in: batch_size, seed"):
        pretrain_encoder(replace(settings, seed=1, batch_size=5))
    other = replace(config("dino", tiles, tmp_path / "run"), epochs=0.2)
    with pytest.raises(InputError, match="the method"):
        pretrain_encoder(other)
    assert (tmp_path / "run" / "encoder" / "model.safetensors").read_bytes() == before


def test_other_tiles_are_refused_in_a_used_folder(tiles: Path, tmp_path: Path) -> None:
    settings = replace(config("barlow_twins", tiles, tmp_path / "run"), epochs=0.2)
    pretrain_encoder(settings)
    other = tmp_path / "other"
    other.mkdir()
    for index in range(20):
        Image.new("RGB", (48, 48), (index, 0, 0)).save(other / f"{index}.png")
    with pytest.raises(InputError, match="the tiles of --data"):
        pretrain_encoder(replace(settings, data=(other,)))


def test_another_stain_is_refused_in_a_used_folder_and_the_export_tells_of_it(
    tiles: Path, tmp_path: Path
) -> None:
    file = tmp_path / "private" / "stain.json"
    file.parent.mkdir()
    file.write_text(json.dumps(stain.published("lab").to_json()))
    method = replace(SMALL["barlow_twins"].method, stain=str(file), stain_p=1.0)
    base = replace(config("barlow_twins", tiles, tmp_path / "run"), method=method, epochs=0.5)
    encoder = pretrain_encoder(base)
    card = json.loads((encoder / "config.json").read_text())
    assert "private" not in json.dumps(card) and "crc-lab" in json.dumps(card)
    file.write_text(json.dumps(stain.published("hsv").to_json()))
    with pytest.raises(InputError, match=r"differs in: the views \(the file of --method.stain"):
        pretrain_encoder(base)


def test_a_foreign_stain_file_is_refused_before_anything_is_written(
    tiles: Path, tmp_path: Path
) -> None:
    (tmp_path / "stain.json").write_text("{}")
    method = replace(SMALL["dino"].method, stain=str(tmp_path / "stain.json"))
    with pytest.raises(InputError, match=r"stain.json cannot be used: .* `eosin stain fit`"):
        pretrain_encoder(replace(config("dino", tiles, tmp_path / "run"), method=method))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertical_flip": 1.5}, "--method.vertical-flip is 1.5; it is a probability"),
        ({"stain_p": -0.1}, "--method.stain-p is -0.1"),
        ({"stain_p": 0.5}, "--method.stain-p needs --method.stain"),
    ],
)
@pytest.mark.parametrize("method", list(SMALL))
def test_senseless_views_are_refused(method: str, change: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(SMALL[method].method, **change)


def test_settings_of_views_change_every_view() -> None:
    changed = replace(
        SMALL["dino"].method, views="pathology", vertical_flip=0.1, stain="crc-hsv", stain_p=1.0
    )
    specs = replace(SMALL["dino"], method=changed).views().specs
    assert [spec.size_px for spec in specs] == [32, 32, 16, 16]
    assert all(spec.vflip_p == 0.1 and spec.stain_p == 1.0 for spec in specs)
    assert all(spec.stain is not None and spec.stain.space == "hsv" for spec in specs)
    assert all(spec.jitter == (0.2, 0.2, 0.2, 0.1) for spec in specs)


def test_a_finished_run_gives_its_encoder_again(tiles: Path, tmp_path: Path) -> None:
    settings = replace(config("barlow_twins", tiles, tmp_path / "run"), epochs=0.2)
    first = (pretrain_encoder(settings) / "model.safetensors").read_bytes()
    assert (pretrain_encoder(settings) / "model.safetensors").read_bytes() == first


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(
    tiles: Path, tmp_path: Path
) -> None:
    wild = replace(SMALL["barlow_twins"].method, lr_per_256=1e30)  # pyright: ignore[reportCallIssue]
    settings = replace(config("barlow_twins", tiles, tmp_path / "run"), method=wild)
    with pytest.raises(InputError, match=r"not finite (at update|in 6 of the last) \d"):
        pretrain_encoder(replace(settings, checkpoint_every=1, most_skipped=5))
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        weights = torch.load(checkpoint, weights_only=True)["module"].values()
        assert all(w.isfinite().all() for w in weights)
    assert not (tmp_path / "run" / "encoder").exists()


def test_a_damaged_checkpoint_is_named(tiles: Path, tmp_path: Path) -> None:
    settings = replace(config("barlow_twins", tiles, tmp_path / "run"), epochs=0.4)
    pretrain_encoder(settings)
    checkpoint = max((tmp_path / "run" / "checkpoints").iterdir())
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match=rf"{checkpoint.name} cannot be read.*delete it"):
        pretrain_encoder(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 1}, "--batch-size is 1"),
        ({"epochs": 0}, "--epochs"),
        ({"data_weights": (1.0, 2.0)}, "--data-weights has 2"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(SMALL["dino"], data=(Path("a"),), **change)  # pyright: ignore[reportArgumentType]


def test_missing_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data is missing"):
        pretrain_encoder(replace(SMALL["dino"], out=tmp_path))


def pretrained_on_ranks(method: str, tiles: Path, out: Path, kill_at: int) -> str:
    settings = replace(config(method, tiles, out), batch_size=8, epochs=2)
    if kill_at and distributed.rank() == 1:
        kill_after(kill_at)
    return str(pretrain_encoder(settings))


def kill_after(updates: int) -> None:
    """Kills this process when it begins the update after so many."""
    take = Stepper.__call__

    def counted(self: Stepper, batch: Batch, update: int, *rest: object) -> object:
        if update == updates:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, batch, update, *rest)  # pyright: ignore[reportArgumentType]

    Stepper.__call__ = counted


# The others share all that matters here.
@pytest.mark.parametrize("method", ["dino", pytest.param("moco_v2", marks=pytest.mark.slow)])
def test_killed_processes_resume_to_the_same_bits(method: str, tiles: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    folders = run_on_ranks(2, pretrained_on_ranks, tmp_path / "a", method, tiles, whole, 0)
    assert folders == [str(whole / "encoder")] * 2
    with pytest.raises(AssertionError):
        run_on_ranks(2, pretrained_on_ranks, tmp_path / "b", method, tiles, killed, 4)
    assert not (killed / "encoder").exists() and (killed / "checkpoints").is_dir()
    run_on_ranks(2, pretrained_on_ranks, tmp_path / "c", method, tiles, killed, 0)
    weights = [(out / "encoder" / "model.safetensors").read_bytes() for out in (whole, killed)]
    assert weights[0] == weights[1] and log(whole) == log(killed)
    # Another number of processes would have other BatchNorm statistics and random numbers.
    with pytest.raises(InputError, match=r"the number of processes \(it was 2\)"):
        pretrain_encoder(replace(config(method, tiles, whole), batch_size=8, epochs=2))


def test_an_update_that_processes_and_micro_batches_cannot_share_is_refused(
    tiles: Path, tmp_path: Path
) -> None:
    settings = replace(config("dino", tiles, tmp_path / "run"), micro_batch_size=3)
    with pytest.raises(UsageError, match="--micro-batch-size 3 must divide the 4 tiles"):
        pretrain_encoder(settings)
    barlow = replace(config("barlow_twins", tiles, tmp_path / "run"), micro_batch_size=2)
    with pytest.raises(UsageError, match="cannot accumulate gradients over 2 micro-batches"):
        pretrain_encoder(barlow)


def test_a_plan_writes_nothing(tiles: Path, tmp_path: Path) -> None:
    text = plan_pretraining(replace(config("dino", tiles, tmp_path / "run"), plan=True))
    assert "15 updates of 4 tiles" in text and "learning rate: " in text
    assert re.search(r"measured: \S+ tiles/s, .* updates left; memory of the process", text)
    assert not (tmp_path / "run").exists()


def test_an_export_tells_of_its_tiles_without_what_is_private(tmp_path: Path) -> None:
    url = "s3://bucket/cohort/tiles?signature=secret"
    settings = replace(SMALL["dino"], data=(url, Path("/data/cohort")))
    assert plain(settings)["data"] == [url, "/data/cohort"]
    init = tmp_path / "private" / "encoder"
    init.mkdir(parents=True)
    plan = Plan(batch_size=4, updates=2, updates_per_epoch=2)
    sources = [DrawnTiles(3, mpps=(0.5,), tile_px=256), DrawnTiles(5)]
    told = provenance(replace(settings, init=str(init)), plan, sources, 8, 1)
    assert told["config"]["data"] == ["tiles", "cohort"] and told["config"]["init"] == "encoder"
    assert told["data"] == [
        {"name": "tiles", "tiles": 3, "mpp": [0.5], "tile_px": 256, "sha256": "3"},
        {"name": "cohort", "tiles": 5, "sha256": "5"},
    ]


class DrawnTiles:
    """A source that says how many tiles it has, and their size where it knows it."""

    def __init__(self, count: int, **known: object) -> None:
        self.count, self.fingerprint = count, str(count)
        vars(self).update(known)

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> np.ndarray:
        raise NotImplementedError


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_are_complete_and_described(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.encoder and recipe.method_name in plugins.names("methods")
    assert len(recipes.summary(name)) > 20


def test_a_method_is_a_recipe_with_its_official_settings() -> None:
    recipe = preset_config("dino")
    assert recipe.method == dino.Config() and recipe.encoder == "vit_small_patch16"
    assert recipes.load("swav/vissl").method == swav.PRESETS["vissl"]
    with pytest.raises(UsageError, match="dino has no preset 'best'; it has official, vissl"):
        preset_config("dino/best")
    with pytest.raises(UsageError, match=r"'mae'.*barlow_twins"):
        recipes.load("mae")


def test_moco_in_one_part_is_warned_of(tiles: Path, tmp_path: Path) -> None:
    split = replace(config("moco_v2", tiles, tmp_path / "run"), epochs=0.2)
    assert "warning" not in plan_pretraining(split)
    whole = replace(split, method=replace(split.method, bn_splits=1))  # pyright: ignore[reportCallIssue]
    assert "warning: BatchNorm sees all 4 tiles" in plan_pretraining(whole)
