"""What a run shows while it trains: scores, the best checkpoint, the page."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.engine.checkpoint import load_checkpoint
from eosin.engine.log import read_log
from eosin.errors import InputError, UsageError
from eosin.methods import barlow_twins
from eosin.pretrain.config import Config
from eosin.pretrain.observer import keep_best
from eosin.pretrain.run import pretrain_encoder
from eosin.weights import load_encoder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eight images, of which the last of each are of another slide."""
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    rows = ["file,slide"]
    for name, hue in (("pale", 200), ("dark", 60)):
        (root / name).mkdir()
        for index in range(8):
            pixels = np.clip(rng.normal(hue, 30, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
            rows.append(f"{name}/{index}.png,{name}-{index // 2}")
    (root / "slides.csv").write_text("\n".join(rows) + "\n")
    return root


def settings(labelled: Path, out: Path) -> Config:
    return Config(
        method=barlow_twins.Config(view_px=32, projector=(16, 16), optimizer="adamw"),
        encoder="timm/test_resnet",
        data=(labelled / "pale", labelled / "dark"),
        out=out,
        batch_size=4,
        epochs=2,
        workers=0,
        checkpoint_every=2,
        log_every=1,
        monitor_on=labelled,
        track=(),
    )


def test_the_best_by_knn_is_kept_and_exported(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    folder = pretrain_encoder(settings(labelled, out))
    lines = read_log(out / "log.jsonl")
    scored = {line["update"]: line["knn"] for line in lines if "knn" in line}
    assert list(scored) == [2, 4, 6, 8]
    best = max(scored, key=lambda update: (scored[update], -update))
    assert load_checkpoint(out / "checkpoints" / "best.pt")["update"] == best
    exported = load_encoder(out / "best_encoder")
    assert exported.card.provenance["tiles_seen"] == best * 4
    assert load_encoder(folder).card.provenance["tiles_seen"] == 32
    same = exported.weights_sha256() == load_encoder(folder).weights_sha256()
    assert same == (best == 8)
    page = (out / "training.html").read_text()
    assert "RankMe" in page and "Labelled images" in page
    run = json.loads((out / "run.json").read_text())
    assert run["plan"]["updates"] == 8


def test_the_best_is_found_again_after_a_kill_between_two_writes(
    labelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    pretrain_encoder(settings(labelled, out))
    checkpoints = out / "checkpoints"
    newest = max(checkpoints.glob("update-*.pt"))
    (checkpoints / "best.pt").unlink()
    lines = read_log(out / "log.jsonl")
    for line in lines:
        line.pop("knn", None)
    lines[-1]["knn"] = 1.0
    (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    keep_best(out)
    assert (checkpoints / "best.pt").samefile(newest)


def test_scores_that_cannot_be_had_are_refused_before_anything_is_written(
    labelled: Path, tmp_path: Path
) -> None:
    base = settings(labelled, tmp_path / "run")
    with pytest.raises(InputError, match="nowhere does not exist"):
        pretrain_encoder(replace(base, monitor_on=tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="--monitor-every 3 must be a multiple"):
        replace(base, monitor_every=3)
    assert not (tmp_path / "run").exists()


def test_a_tile_that_cannot_be_read_is_left_out_of_what_is_watched(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    (folder / "00.png").write_bytes(b"no image")
    config = replace(settings(tmp_path, tmp_path / "run"), monitor_on=None, data=(folder,))
    assert pretrain_encoder(replace(config, epochs=1)).is_dir()
