"""The same work on a Ray cluster of two nodes; Ray runs in other processes than the tests."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eosin.cli import main
from eosin.store.tile_store import TileStore

WriteSlide = Callable[..., Path]

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is missing")

_TWO_NODES = """
import sys

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    cluster = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()
"""

_JOBS = """
import os
import signal
import time
from pathlib import Path

import ray

from eosin.slides import tissue

PARTNER = {"left": "right", "right": "left"}


def report_place(job, report):
    if job == "fatal":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "full":
        raise OSError(28, "No space left on device")
    if job in PARTNER:
        # Each node has room for one, so they meet only if both nodes work.
        Path(job).touch()
        while not Path(PARTNER[job]).exists():
            time.sleep(0.05)
    for part in ("begun", "done"):
        report([job, part])
    return [job, ray.get_runtime_context().get_node_id(), os.getcwd()]


def wait(job, report):
    Path(job).touch()
    time.sleep(600)


def find_tissue_at_second_try(rgb, mpp):
    try:
        Path("seen").touch(exist_ok=False)
    except FileExistsError:
        return tissue.find_tissue(rgb, mpp, "hsv")
    os.kill(os.getpid(), signal.SIGKILL)
"""

_RUN = """
import json
import signal
import sys
from pathlib import Path

import jobs
from eosin.tiling import cluster
from eosin.tiling.processes import Lost

work, given, address = getattr(jobs, sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
shared = Path(sys.argv[4]) if len(sys.argv) > 4 else None
results, notes, error = [], [], None
# Whoever starts tests in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    for result in cluster.run(work, given, address, notes.append, shared):
        results.append(["lost", result.job] if isinstance(result, Lost) else result)
except Exception as raised:
    error = [type(raised).__name__, str(raised)]
except KeyboardInterrupt:
    error = ["KeyboardInterrupt", ""]
print(json.dumps({"results": results, "notes": notes, "error": error}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the modules lie that the cluster imports."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "jobs.py").write_text(_JOBS)
    (folder / "run.py").write_text(_RUN)
    (folder / "two_nodes.py").write_text(_TWO_NODES)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """A cluster of two nodes of one CPU each."""
    command = [sys.executable, str(folder / "two_nodes.py")]
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = os.environ | {"PYTHONPATH": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        command, **streams, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("")


def _start(folder: Path, *arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, **streams, text=True, env=environment, cwd=cwd)


def _run(folder: Path, work: str, jobs: list[str], *rest: str, cwd: Path) -> dict[str, Any]:
    process = _start(folder, str(folder / "run.py"), work, json.dumps(jobs), *rest, cwd=cwd)
    output, errors = process.communicate(timeout=60)
    assert errors == ""
    return json.loads(output)


def _content(folder: Path) -> dict[str, bytes]:
    """Every file of a store; of `store.json` all but the stamp, which holds the time."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    header = json.loads(content.pop("store.json"))
    del header["provenance"]
    return content | {"store.json": json.dumps(header).encode()}


@needs_ray
def test_a_cluster_makes_the_same_store_though_a_process_is_killed(
    write_slide: WriteSlide,
    tmp_path: Path,
    folder: Path,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed in range(4):
        write_slide(f"cohort/{seed}.tif", seed=seed)
    write_slide("no_mpp.tif", mpp=None)
    (tmp_path / "slides" / "text.svs").write_text("not a slide")
    options = [
        "--slides",
        "slides",
        "--tile-px",
        "64",
        "--tissue",
        "jobs:find_tissue_at_second_try",
    ]
    command = ["tile", *options, "--json"]

    process = _start(
        folder, "-m", "eosin", *command, "--out", "two", "--ray", address, cwd=tmp_path
    )
    output, errors = process.communicate(timeout=100)

    # The killed process was tried again, and nothing was said about it.
    assert (tmp_path / "seen").is_file()
    assert process.returncode == 3, errors
    facts = json.loads(output)
    assert (facts["done"], set(facts["quarantined"])) == (4, {"no_mpp.tif", "text.svs"})
    assert all(line.startswith("tiling: ") for line in errors.splitlines()), errors
    assert "6/6 slides" in errors and f"{facts['tiles']:,} tiles" in errors
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(folder)
    assert main([*command, "--out", "one", "--workers", "1"]) == 3
    assert _content(tmp_path / "two") == _content(tmp_path / "one")
    assert TileStore(tmp_path / "two").verify() == []


@needs_ray
def test_both_nodes_work_and_say_how_far_they_are(
    tmp_path: Path, folder: Path, address: str
) -> None:
    names = ["0", "1", "left", "right"]
    run = _run(folder, "report_place", names, address, str(tmp_path), cwd=tmp_path)
    assert run["error"] is None
    assert sorted(name for name, _, _ in run["results"]) == names
    assert len({node for name, node, _ in run["results"] if name in ("left", "right")}) == 2
    assert {where for _, _, where in run["results"]} == {str(tmp_path)}
    assert sorted(run["notes"]) == sorted(
        [[name, part] for name in names for part in ("begun", "done")]
    )


@needs_ray
def test_a_job_that_kills_its_process_is_lost_and_the_rest_goes_on(
    tmp_path: Path, folder: Path, address: str
) -> None:
    # Jobs that wait in the process that is killed are tried again, so this is a test of its own.
    run = _run(folder, "report_place", ["fatal", "0", "1"], address, str(tmp_path), cwd=tmp_path)
    assert run["error"] is None
    assert ["lost", "fatal"] in run["results"]
    done = [result[0] for result in run["results"] if result[0] != "lost"]
    assert sorted(done) == ["0", "1"]


@needs_ray
@pytest.mark.parametrize(
    ("job", "shared", "error"),
    [
        ("full", ".", ["OSError", "[Errno 28] No space left on device"]),
        ("0", "absent", ["InputError", "does not see absent (No such file or directory). Slides,"]),
    ],
)
def test_an_error_ends_the_run(
    tmp_path: Path, folder: Path, address: str, job: str, shared: str, error: list[str]
) -> None:
    run = _run(folder, "report_place", [job, "1"], address, shared, cwd=tmp_path)
    assert run["error"][0] == error[0]
    assert error[1] in run["error"][1] and "\n" not in run["error"][1]


@pytest.mark.slow
@needs_ray
def test_ctrl_c_ends_the_tasks_at_once(tmp_path: Path, folder: Path, address: str) -> None:
    names = ["one", "two", "three"]
    process = _start(
        folder, str(folder / "run.py"), "wait", json.dumps(names), address, cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while not all((tmp_path / name).exists() for name in names[:2]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (json.loads(output)["error"], errors) == (["KeyboardInterrupt", ""], "")
    # Both nodes are free again, so the next run ends.
    run = _run(folder, "report_place", ["0", "1"], address, cwd=tmp_path)
    assert len(run["results"]) == 2
    assert not (tmp_path / "three").exists()


@needs_ray
@pytest.mark.parametrize(
    ("address", "exit_code", "words"),
    [
        ("somewhere", 2, "--ray is 'somewhere'; it must be auto, local, host:port or ray://"),
        ("127.0.0.1:1", 1, "--ray 127.0.0.1:1: nothing answers there"),
        ("ray://127.0.0.1:1", 1, "--ray ray://127.0.0.1:1: nothing answers there"),
    ],
)
def test_a_cluster_that_is_not_there(
    write_slide: WriteSlide,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    address: str,
    exit_code: int,
    words: str,
) -> None:
    slide, out = str(write_slide()), str(tmp_path / "store")
    assert main(["tile", "--slides", slide, "--out", out, "--ray", address]) == exit_code
    errors = capsys.readouterr().err.splitlines()
    assert words in errors[-1]


def test_without_ray_its_extra_is_named(
    write_slide: WriteSlide,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    slide, out = str(write_slide()), str(tmp_path / "store")
    assert main(["tile", "--slides", slide, "--out", out, "--ray", "auto"]) == 2
    assert 'pip install "eosin[ray]"' in capsys.readouterr().err
