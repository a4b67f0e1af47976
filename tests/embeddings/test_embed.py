import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch

import eosin.embeddings
from eosin.atomic import locked
from eosin.embeddings import parts
from eosin.embeddings.embed import Config, embed_images
from eosin.embeddings.extract import Config as Computing
from eosin.embeddings.extract import extract
from eosin.embeddings.measured_plan import plan_embedding
from eosin.embeddings.sources import Given
from eosin.embeddings.work import EmbedReport
from eosin.errors import InputError, Interrupted, UsageError
from eosin.weights import load_encoder
from tests.embeddings.drawn_images import HISTOGRAM, draw_images, export_small
from tests.store.small_stores import make_store

FILES = ("embed.json", "embeddings.safetensors", "rows.parquet")


def config(data: Path | str, out: Path, encoder: str = HISTOGRAM, **changes: Any) -> Config:
    computing = Computing(precision="fp32", batch_size=changes.pop("batch_size", 4), workers=1)
    return Config(encoder=encoder, data=(str(data),), out=out, embedding=computing, **changes)


def run(*args: Any, **changes: Any) -> EmbedReport:
    return embed_images(config(*args, **changes))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return draw_images(tmp_path / "images", 11)


def test_embeddings_rows_and_what_they_are_of(images: Path, tmp_path: Path) -> None:
    encoder = export_small(tmp_path / "encoder")
    out = tmp_path / "emb"
    report = run(images, out, encoder)
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == sorted(FILES)
    matrix = safetensors.numpy.load_file(out / "embeddings.safetensors")["embeddings"]
    given = Given(data=(str(images),)).open()
    expected = extract(load_encoder(encoder), given, config(images, out).embedding)
    assert (matrix == expected).all() and matrix.dtype == np.float32
    assert pq.read_table(out / "rows.parquet")["id"].to_pylist() == list(given.ids)
    about = json.loads((out / "embed.json").read_text())
    assert about["encoder"]["weights_sha256"] == load_encoder(encoder).weights_sha256()
    assert (about["embeddings"], about["precision"], about["backend"]) == (11, "fp32", "torch")
    assert about["data"][0]["kind"] == "folder of images" and about["provenance"]["versions"]
    assert (report.embeddings, report.embed_dim, report.done) == (11, 512, 11)
    assert report.bytes == 4 * 11 * 512 and report.exit_code == 0


def test_finished_work_is_not_done_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "emb"
    run(images, out)
    before = {name: (out / name).read_bytes() for name in FILES}
    monkeypatch.setattr("eosin.embeddings.work.Extractor", None)
    report = run(images, out)
    assert (report.done, report.embeddings) == (0, 11)
    assert {name: (out / name).read_bytes() for name in FILES} == before


@pytest.mark.parametrize("name", FILES)
def test_damaged_results_are_made_again(images: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "emb"
    run(images, out)
    before = (out / "embeddings.safetensors").read_bytes()
    content = bytearray((out / name).read_bytes())
    (out / name).write_bytes(content[:-5])
    if name == "embed.json":
        with pytest.raises(InputError, match=r"embed\.json is not that of embeddings"):
            run(images, out)
        return
    assert run(images, out).done == 11
    assert (out / "embeddings.safetensors").read_bytes() == before


def test_what_a_killed_run_left_is_used(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(images, tmp_path / "whole")
    monkeypatch.setattr(parts, "_SECONDS_BETWEEN_FILES", 0.001)
    add, calls = parts.Parts.add, []

    def dies(self: parts.Parts, batch: Any) -> None:
        add(self, batch)
        calls.append(batch)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(parts.Parts, "add", dies)
        with pytest.raises(KeyboardInterrupt):
            run(images, tmp_path / "emb")
    assert not (tmp_path / "emb" / "embed.json").exists()
    assert run(images, tmp_path / "emb").done == 3  # of 11, in batches of 4
    whole, resumed = (
        (tmp_path / name / "embeddings.safetensors").read_bytes() for name in ("whole", "emb")
    )
    assert whole == resumed
    assert not list((tmp_path / "emb").glob("*.parts"))


def _embed_in_a_fork(settings: Config) -> int:
    """Starts the work in a process of its own, which importing would make seconds late."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            parts._SECONDS_BETWEEN_FILES = 0.01
            embed_images(settings)
            code = 0
        finally:
            os._exit(code)
    return child


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    images = draw_images(tmp_path / "images", 160, px=90)
    run(images, tmp_path / "whole")
    rng, kills, out = np.random.default_rng(), 0, tmp_path / "emb"
    for _ in range(12):
        child = _embed_in_a_fork(config(images, out))
        time.sleep(rng.uniform(0.1, 0.4))
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            assert os.WEXITSTATUS(status) == 0
            break
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
    report = run(images, out)
    assert kills > 0 and report.embeddings == 160
    for name in ("embeddings.safetensors", "rows.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == sorted(FILES)


_STOPPABLE = """
import sys, time
from eosin.embeddings import sources
read = sources.Joined.read
def slow(self, index):
    print(index, flush=True)
    time.sleep(0.02)
    return read(self, index)
sources.Joined.read = slow
from eosin.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_asked_to_stop_it_keeps_what_is_done(tmp_path: Path) -> None:
    images, out = draw_images(tmp_path / "images", 120), tmp_path / "emb"
    words = ["embed", HISTOGRAM, "--data", str(images), "-o", str(out), "--batch-size", "4"]
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _STOPPABLE, *words, "--workers", "1"]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "30":
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 4
    assert errors.splitlines()[-1] == (
        "eosin embed: Stopped; the same command goes on with what is left."
    )
    report = run(images, out)
    assert 0 < report.done < 120 and report.embeddings == 120


def test_unreadable_images_are_left_out_and_named(images: Path, tmp_path: Path) -> None:
    whole = run(images, tmp_path / "whole")
    bad = sorted(images.rglob("*.png"))[3]
    bad.write_bytes(b"junk")
    report = run(images, tmp_path / "emb", max_unreadable=0.1)
    assert (report.exit_code, report.embeddings, whole.embeddings) == (3, 10, 11)
    name = str(bad.relative_to(images))
    assert list(report.unreadable) == [name] and str(bad) in report.unreadable[name]
    found = eosin.embeddings.read(tmp_path / "emb")
    others = [n for n in range(11) if n != 3]
    expected = eosin.embeddings.read(tmp_path / "whole")
    assert (found.matrix == expected.matrix[others]).all()
    assert found.rows["id"].to_pylist() == expected.rows["id"].take(others).to_pylist()
    assert found.about["unreadable"] == report.unreadable
    assert run(images, tmp_path / "emb", max_unreadable=0.1).exit_code == 3


def test_too_many_unreadable_images_end_the_run(images: Path, tmp_path: Path) -> None:
    for bad in sorted(images.rglob("*.png"))[3:6]:
        bad.write_bytes(b"junk")
    with pytest.raises(InputError, match=r"images cannot be read, which is more than --max-unr"):
        run(images, tmp_path / "emb", max_unreadable=0.2)
    assert not (tmp_path / "emb" / "embed.json").exists()
    assert run(images, tmp_path / "emb", max_unreadable=0.3).embeddings == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "small"}, "weights was"),
        ({"dtype": "float16"}, "dtype was float32 and is now float16"),
        ({"limit": 3}, "images was"),
    ],
)
def test_another_run_needs_another_folder(
    images: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run(images, tmp_path / "emb")
    if "encoder" in change:
        change = {"encoder": export_small(tmp_path / "small")}
    with pytest.raises(InputError, match=f"holds other embeddings: .*{message}.*Choose another"):
        run(images, tmp_path / "emb", **change)


def test_a_folder_of_something_else_is_left_alone(images: Path, tmp_path: Path) -> None:
    (tmp_path / "emb").mkdir()
    (tmp_path / "emb" / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match=r"it has thesis\.tex; choose another --out"):
        run(images, tmp_path / "emb")


def test_two_runs_on_one_folder(images: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "emb"), pytest.raises(InputError, match="another run"):
        run(images, tmp_path / "emb")


def test_float16_halves_the_file_and_overflow_is_told(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(images, tmp_path / "half", dtype="float16").bytes == 2 * 11 * 512
    full = run(images, tmp_path / "full")
    assert full.bytes == 4 * 11 * 512
    half, whole = (eosin.embeddings.read(tmp_path / name).matrix for name in ("half", "full"))
    assert half.dtype == np.float16 and (half == whole.astype(np.float16)).all()
    fill = eosin.embeddings.work.Extractor.run

    def enlarge(self: Any, batches: Any) -> Any:
        for batch in fill(self, batches):
            batch.embeddings[:] = 1e6
            yield batch

    monkeypatch.setattr(eosin.embeddings.work.Extractor, "run", enlarge)
    with pytest.raises(InputError, match="--dtype float16 cannot hold"):
        run(images, tmp_path / "over", dtype="float16")
    assert not (tmp_path / "over" / "embeddings.safetensors").exists()


def test_a_full_disk_loses_nothing(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts, "_SECONDS_BETWEEN_FILES", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr("eosin.embeddings.matrix_run.write_rows", full)
        with pytest.raises(Interrupted, match=r"No space left on device.*same command goes on"):
            run(images, tmp_path / "emb")
    assert run(images, tmp_path / "emb").done == 0
    assert not list((tmp_path / "emb").glob(".writing*"))


def test_pooling_is_that_of_the_option(tmp_path: Path, images: Path) -> None:
    encoder = export_small(tmp_path / "vit", "timm/test_vit")
    by_class = eosin.embeddings.work.open_work(config(images, tmp_path, encoder, pooling="cls"))
    by_mean = eosin.embeddings.work.open_work(config(images, tmp_path, encoder, pooling="mean"))
    assert by_class.encoder.pooling == "cls" and by_mean.encoder.pooling == "mean"
    assert by_class.what != by_mean.what


def test_a_plan_writes_nothing(images: Path, tmp_path: Path) -> None:
    plan = plan_embedding(config(images, tmp_path / "emb", limit=9))
    assert (plan.images, plan.embed_dim, plan.bytes) == (9, 512, 4 * 9 * 512)
    assert plan.images_per_s > 0 and "11 of the folder of images" in str(plan)
    assert not (tmp_path / "emb").exists()


def test_tiles_that_are_damaged_are_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "tiles", {"one-00000001": 9, "two-00000002": 9})
    shard = store / "shards" / "one-00000001.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    report = run(store, tmp_path / "emb", max_unreadable=0.1)
    assert report.embeddings == 17 and report.exit_code == 3
    assert list(report.unreadable) == ["one-00000001/0_0_500nm"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(encoder="x", data=(), out=Path("o")), "--data is missing"),
        (lambda: Config(encoder="x", data=("d",), out=Path("o"), limit=0), "--limit 0"),
        (
            lambda: Config(encoder="x", data=("d",), out=Path("o"), max_unreadable=2),
            "--max-unreadable 2",
        ),
    ],
)
def test_senseless_options(make: Callable[[], Config], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_interrupted_is_resumable() -> None:
    assert Interrupted.exit_code == 4
