"""The page of a run shows what its log holds, loads nothing, and never trusts a text."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from eosin.errors import InputError
from eosin.pretrain.training_page import write_training_page

PLAN = {"updates": 1000, "batch_size": 64, "chance_loss": math.log(4096), "directions": 256}
EVIL = "</script><script>document.title = 'taken over'</script>"


def write_run(
    folder: Path, lines: Sequence[Mapping[str, Any]], plan: Mapping[str, Any] | None = PLAN
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    run: dict[str, Any] = {
        "method_name": "dino",
        "config": {"method": {"lr": 0.1, "scale": [0.2, 1.0]}, "encoder": EVIL},
        "provenance": {"hardware": "a CPU, 2 cores"},
    }
    if plan is not None:
        run["plan"] = plan
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def some_lines(count: int, every: int = 10) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        line: dict[str, Any] = {
            "update": every * number,
            "loss": 5 + 3 / number,
            "teacher_entropy": 4.0 + 1 / number,
            "divergence": 1.0,
            "tiles_per_s": 100.0,
            "data_wait": 0.125,
            "lr/weights": 0.001 * number,
            "weight_decay/weights": 0.04,
            "skipped": 0,
            EVIL: 1.0,
        }
        if number % 5 == 0:
            line |= {"rankme": 20.0 + number, "embedding_std": 0.5, "knn": 0.9 - 0.001 * number}
        lines.append(line)
    return lines


def page_of(folder: Path) -> str:
    return write_training_page(folder).read_text(encoding="utf-8")


def titles(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_the_page_shows_all_metrics_and_how_far_the_run_is(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "my run", some_lines(40))
    (folder / "checkpoints").mkdir()
    for update in (200, 400):
        (folder / "checkpoints" / f"update-{update:08d}.pt").write_bytes(b"")
    page = page_of(folder)
    assert "<h1>my run</h1>" in page and "dino" in page
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert facts == {
        "Updates": "400 of 1,000 (40%)",
        "Tiles seen": "25,600",
        "Loss": "5.075",
        "Tiles a second": "100",
        "Time left": "6 min",
        "Last checkpoint": "update-00000400.pt",
        "Best by kNN": "update 50 (89.5%)",
    }
    shown = titles(page)
    assert shown[:4] == ["Loss", "Labelled images", "RankMe", "Spread of embeddings"]
    assert {"Teacher&#39;s outputs", "Learning rate", "Tiles a second"} <= set(shown)
    assert "Weight decay" not in shown  # which never changes
    assert "12.5 %" in page  # of the time
    assert "Something is wrong" not in page
    assert "method.scale</th><td>0.2, 1.0</td>" in page


def test_a_collapse_is_said_on_the_page(tmp_path: Path) -> None:
    lines = [{"update": 10 * n, "loss": math.log(4096)} for n in range(1, 51)]
    page = page_of(write_run(tmp_path, lines))
    assert "Something is wrong" in page and "the loss stays at 8.318" in page
    lines[-1]["loss"] = 6.0
    assert "Something is wrong" not in page_of(write_run(tmp_path, lines))


def test_texts_are_escaped_and_the_page_loads_nothing(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "a <b> & c", some_lines(3)))
    assert EVIL not in page and "<b> &" not in page
    assert len(re.findall(r"<script", page)) == 2
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)=["']|url\(|@import|https?://(?!www\.w3\.org)""", page)


def test_runs_of_any_length_have_a_page(tmp_path: Path) -> None:
    for plan in (PLAN, None):
        assert "no lines yet" in page_of(write_run(tmp_path, [], plan))
        one = page_of(write_run(tmp_path, some_lines(1), plan))
        assert "Loss" in titles(one) and ("of 1,000" in one) == (plan is not None)
    lines = some_lines(20_000, every=1)
    lines[7_777]["loss"] = 99.5
    page = page_of(write_run(tmp_path, lines))
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])
    assert all(len(each["values"]) <= 500 for chart in data for each in chart["series"])
    assert 99.5 in data[0]["series"][0]["values"] and data[0]["last"] == 20_000
    assert len(page) < 400_000


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pre-training run"):
        write_training_page(tmp_path)
    (tmp_path / "run.json").write_text("{half")
    with pytest.raises(InputError, match="holds no pre-training run"):
        write_training_page(tmp_path)
    assert not (tmp_path / "training.html").exists()


@pytest.fixture
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium on PATH to open the page with")
    return found


@pytest.mark.parametrize("width_px", [500, 1280])
def test_a_browser_shows_values_by_keyboard_and_nothing_sticks_out(
    tmp_path: Path, chromium: str, width_px: int
) -> None:
    page = write_training_page(write_run(tmp_path / "run", some_lines(40)))
    # The same page with a script of ours at its end, which its policy must let in.
    probe = """
      const svg = document.querySelector('svg[data-chart]');
      svg.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}));
      const reading = svg.parentElement.querySelector('.reading').textContent;
      svg.dispatchEvent(new Event('blur'));
      const after = svg.parentElement.querySelector('.reading').textContent;
      const root = document.documentElement;
      const out = [reading, after, String(root.scrollWidth <= root.clientWidth), document.title];
      document.body.dataset.found = out.join('|');
    """
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)
    text = text.replace("</body>", f"<script>{probe}</script></body>")
    page.with_name("probed.html").write_text(text, encoding="utf-8")

    def browse(name: str) -> subprocess.CompletedProcess[str]:
        command = [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--window-size={width_px},900", "--dump-dom", page.with_name(name).as_uri()),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    done = browse("probed.html")
    reading, after, fits, title = re.findall(r'data-found="(.*?)"', done.stdout)[0].split("|")
    assert reading == "update 3905.077" and after == "5.075"
    assert fits == "true" and title == "run: pre-training"
    assert "CONSOLE" not in done.stderr
    assert "CONSOLE" not in browse(page.name).stderr  # its own script is let in by its policy
