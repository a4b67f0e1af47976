"""Embedding on a Ray cluster of two nodes; Ray runs in other processes than the tests."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import eosin.embeddings
from eosin.cli import main
from eosin.embeddings import actors
from tests.embeddings.drawn_images import HISTOGRAM, draw_images, export_small

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is missing")

_IMAGES = """
import os
import signal
import time
from pathlib import Path

import numpy as np
import ray


class Images:
    manifest_sha256 = "0"

    def __init__(self, kind, count=24):
        self.kind, self.ids = kind, [str(number) for number in range(count)]

    def open(self):
        return self

    def read(self, index):
        if ray.is_initialized():
            Path("node-" + ray.get_runtime_context().get_node_id()).touch()
            time.sleep(0.1)
            if self.kind == "kills once" and index == 3:
                try:
                    Path("killed").touch(exist_ok=False)
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "kills" and index == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "fails" and index == 3:
                raise OSError(28, "No space left on device")
        return np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
"""

_RUN = """
import json
import sys
from pathlib import Path

import numpy as np
import torch
from ray.cluster_utils import Cluster

from eosin.embeddings import actors
from eosin.embeddings.extract import Config, batches_of, extract
from eosin.weights import load_encoder
from images import Images

if __name__ == "__main__":
    torch.set_num_threads(1)
    config = Config(precision="fp32", batch_size=2, workers=1)
    encoder = load_encoder(sys.argv[1])
    nodes = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(True, head_node_args=nodes)
    second = cluster.add_node(num_cpus=1)
    told = {}
    for kind in sys.argv[2:]:
        images, found, dies = Images(kind), {}, kind == "kills once"
        for path in Path.cwd().glob("node-*"):
            path.unlink()
        job = actors.Job(encoder=encoder, given=images, config=config, expected=24)
        try:
            for batch in actors.run(job, batches_of(24, 2), cluster.address):
                found[batch.images.start] = batch.embeddings
                if dies and len(list(Path.cwd().glob("node-*"))) == 2:
                    cluster.remove_node(second)
                    dies = False
        except Exception as error:
            told[kind] = [type(error).__name__, str(error)]
            continue
        here = extract(encoder, images, config)
        there = np.concatenate([found[start] for start in sorted(found)])
        told[kind] = ["same" if (here == there).all() else "other", "node lived" if dies else ""]
    print(json.dumps(told))
    cluster.shutdown()
"""


@needs_ray
@pytest.mark.slow
def test_actors_and_nodes_may_die(tmp_path: Path) -> None:
    (tmp_path / "images.py").write_text(_IMAGES)
    (tmp_path / "run.py").write_text(_RUN)
    encoder = export_small(tmp_path / "encoder")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, str(tmp_path / "run.py"), encoder, "fails", "kills", "kills once"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["fails"] == ["OSError", "[Errno 28] No space left on device"]
    kind, message = told["kills"]
    assert kind == "InputError" and "were killed 3 times" in message
    assert told["kills once"] == ["same", ""]
    assert (tmp_path / "killed").exists()


@needs_ray
@pytest.mark.slow
def test_the_command_gives_the_bits_of_one_process(tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images", 11)
    (images / "part-0" / "0004.png").write_bytes(b"junk")
    words = ["embed", HISTOGRAM, "--data", "images", "--batch-size", "2"]
    words += ["--max-unreadable", "0.1", "--json"]
    facts: list[dict[str, Any]] = []
    for more in (["-o", "one"], ["-o", "two", "--ray", "local"]):
        command = [sys.executable, "-m", "eosin", *words, *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 3, done.stderr
        facts.append(json.loads(done.stdout))
    assert [each["embeddings"] for each in facts] == [10, 10]
    one, two = (eosin.embeddings.read(tmp_path / name) for name in ("one", "two"))
    assert (one.matrix == two.matrix).all() and one.rows.equals(two.rows)


def test_blocks_are_small_enough_for_all() -> None:
    batches = [range(n, n + 1) for n in range(100)]
    for crew, most in ((1, 16), (4, 6), (100, 1)):
        blocks = actors._cut(batches, crew)
        assert max(map(len, blocks)) == most
        assert [batch for block in blocks for batch in block] == batches


class Nodes:
    """What Ray says of its nodes."""

    def __init__(self, *resources: dict[str, float], alive: bool = True) -> None:
        self._nodes = [{"Resources": each, "Alive": alive} for each in resources]

    def nodes(self) -> list[dict[str, Any]]:
        return self._nodes


@pytest.mark.parametrize(
    ("nodes", "shares"),
    [
        (Nodes({"CPU": 1.0}, {"CPU": 2.0}), [(1, 0), (2, 0)]),
        (Nodes({"CPU": 9.0}), [(4, 0), (4, 0)]),
        (Nodes({"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0}), [(8, 1), (8, 1)]),
        (Nodes({"CPU": 4.0}, alive=False), []),
        (Nodes({"memory": 1.0}), []),
    ],
)
def test_an_actor_for_each_gpu_or_share_of_cpus(
    nodes: Nodes, shares: list[tuple[int, int]]
) -> None:
    assert [(share.cpus, share.gpus) for share in actors._shares(nodes)] == shares


@pytest.mark.parametrize(
    ("address", "code", "message"),
    [
        ("somewhere", 2, "--ray is 'somewhere'; it must be auto, local, host:port or ray://"),
        ("127.0.0.1:1", 1, "--ray 127.0.0.1:1: nothing answers there"),
    ],
)
@needs_ray
def test_a_cluster_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, code: int, message: str
) -> None:
    images = draw_images(tmp_path / "images", 3)
    words = ["embed", HISTOGRAM, "--data", str(images), "-o", str(tmp_path / "emb")]
    assert main([*words, "--ray", address]) == code
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_without_ray_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    images = draw_images(tmp_path / "images", 3)
    words = ["embed", HISTOGRAM, "--data", str(images), "-o", str(tmp_path / "emb")]
    assert main([*words, "--ray", "auto"]) == 2
    assert 'pip install "eosin[ray]"' in capsys.readouterr().err


def test_torchrun_and_ray_do_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eosin.embeddings.embed import Config
    from eosin.embeddings.work import open_work
    from eosin.errors import UsageError

    monkeypatch.setenv("WORLD_SIZE", "2")
    images = draw_images(tmp_path / "images", 3)
    config = Config(encoder=HISTOGRAM, data=(str(images),), out=tmp_path / "emb", ray="auto")
    with pytest.raises(UsageError, match="--ray and torchrun"):
        open_work(config)
