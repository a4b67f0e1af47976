"""The same embeddings from several processes that `torchrun` started."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from eosin.embeddings import sources
from eosin.embeddings.embed import Config, embed_images
from eosin.embeddings.extract import Config as Computing
from eosin.engine import distributed, sharing
from eosin.errors import InputError, Interrupted, UsageError
from tests.embeddings.drawn_images import draw_images, export_small
from tests.ranks import run_on_ranks
from tests.store.small_stores import make_store

FILES = ("embeddings.safetensors", "rows.parquet")


def embed(settings: dict[str, Any], torn: int | None = None) -> tuple[int, int]:
    """In each process; one image may be torn in the process that has it."""
    torch.set_num_threads(1)
    read = sources.Joined.read

    def read_unless_torn(self: sources.Joined, index: int) -> np.ndarray:
        if index == torn:
            raise RuntimeError("a fault of the machine")
        return read(self, index)

    sources.Joined.read = read_unless_torn
    try:
        computing = Computing(precision="fp32", batch_size=4, workers=1)
        report = embed_images(Config(embedding=computing, **settings))
        return report.embeddings, report.done
    finally:
        sources.Joined.read = read


def test_processes_give_the_bits_of_one(tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images", 19)
    (images / "part-1" / "0013.png").write_bytes(b"junk")
    settings = {"encoder": export_small(tmp_path / "encoder"), "data": (str(images),)}
    settings["max_unreadable"] = 0.1
    alone = embed({**settings, "out": tmp_path / "one"})
    both = run_on_ranks(2, embed, tmp_path / "ranks", {**settings, "out": tmp_path / "two"})
    assert both == [alone, alone] == [(18, 19)] * 2
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert not list((tmp_path / "two").glob("*.parts"))


def test_processes_share_slides(tmp_path: Path) -> None:
    store = make_store(tmp_path / "tiles", {"a-00000001": 9, "b-00000002": 5, "c-00000003": 6})
    settings = {"encoder": export_small(tmp_path / "encoder"), "data": (str(store),)}
    settings["layout"] = "trident"
    alone = embed({**settings, "out": tmp_path / "one"})
    both = run_on_ranks(2, embed, tmp_path / "ranks", {**settings, "out": tmp_path / "two"})
    assert both == [alone, alone] == [(20, 20)] * 2
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.h5"))
    assert len(files) == 3
    for file in files:
        with h5py.File(tmp_path / "one" / file) as one, h5py.File(tmp_path / "two" / file) as two:
            assert (one["features"][:] == two["features"][:]).all()


def fail(settings: dict[str, Any], torn: int) -> list[str]:
    try:
        embed(settings, torn)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return []


def test_a_failing_process_ends_all_with_one_message(tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images", 24)
    settings = {"encoder": "colour_histogram", "data": (str(images),), "out": tmp_path / "emb"}
    main, other = run_on_ranks(2, fail, tmp_path / "ranks", settings, 23)
    assert other == ["RuntimeError", "a fault of the machine"]
    assert main == ["InputError", "process 1 of 2 failed: RuntimeError: a fault of the machine"]
    # What the other process had done is not lost.
    assert embed(settings)[1] < 24


def decide(kinds: list[str]) -> list[str]:
    errors = {
        "usage": UsageError("usage"),
        "input": InputError("input"),
        "stop": Interrupted("stopped"),
        "disk": OSError(28, "No space left on device"),
        "key": KeyboardInterrupt(),
    }

    def step() -> str:
        kind = kinds[distributed.rank()]
        if kind in errors:
            raise errors[kind]
        return kind

    try:
        return [sharing.together(step)]
    except BaseException as error:
        return [type(error).__name__, str(error), str(getattr(error, "exit_code", ""))]


def decide_all(cases: list[list[str]]) -> list[list[str]]:
    return [decide(kinds) for kinds in cases]


def test_all_processes_end_alike(tmp_path: Path) -> None:
    cases = [
        ["fine", "well"],
        ["input", "input"],
        ["fine", "usage"],
        ["stop", "input"],
        ["key", "fine"],
        ["fine", "disk"],
    ]
    main, other = run_on_ranks(2, decide_all, tmp_path / "ranks", cases)
    assert main == [
        ["fine"],
        ["InputError", "input", "1"],
        ["UsageError", "usage", "2"],
        ["InputError", "input", "1"],
        ["Interrupted", "Stopped; the same command goes on.", "4"],
        ["InputError", "[Errno 28] No space left on device (process 1 of 2).", "1"],
    ]
    assert other[0] == ["well"]
    assert [one[0] for one in other[1:]] == ["ToldElsewhere"] * 5
    assert [one[2] for one in other[1:]] == [one[2] for one in main[1:]]


def test_shares_are_runs_that_cover_everything(tmp_path: Path) -> None:
    numbers = np.array([3, 4, 8, 9, 11])
    assert (sharing.share(numbers) == numbers).all()
    shares = run_on_ranks(2, sharing.share, tmp_path / "ranks", numbers)
    assert [share.tolist() for share in shares] == [[3, 4, 8], [9, 11]]


@pytest.mark.slow
def test_torchrun_prints_one_message(tmp_path: Path) -> None:
    images, out = draw_images(tmp_path / "images", 9), tmp_path / "emb"
    words = ["--data", str(images), "-o", str(out), "--batch-size", "4"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", "29617", "-m", "eosin", "embed"]
    good, bad = (
        subprocess.run(
            [*command, name, *words], capture_output=True, text=True, env=dict(os.environ)
        )
        for name in ("colour_histogram", "no/such/encoder")
    )
    assert good.returncode == 0 and "9 embeddings of 512 values" in good.stdout
    assert bad.returncode != 0
    told = [line for line in bad.stderr.splitlines() if line.startswith("eosin embed:")]
    assert len(told) == 1 and "no/such/encoder" in told[0]
