"""The whole line, on drawn slides and on real ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from eosin import demo, recipes
from eosin.demo import Config, Size, run_demo
from eosin.errors import InputError, UsageError
from eosin.methods._base import MethodConfig

TINY = Size(
    slides=1,
    labelled_slides=4,
    tiles_per_class=8,
    tiles_seen={"barlow_twins_resnet10t_cpu": 128, "dino_vit_tiny_cpu": 64},
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of seconds: hardly any training, small heads."""
    monkeypatch.setitem(demo.SIZES, "small", TINY)
    load = recipes.load
    small = {"projector": (32, 32), "out_dim": 64}

    def load_small(name: str):
        recipe = load(name)
        method: MethodConfig = recipe.method
        changes = {key: value for key, value in small.items() if hasattr(method, key)}
        return replace(recipe, method=replace(method, **changes), workers=0)

    monkeypatch.setattr(recipes, "load", load_small)


@pytest.mark.slow  # .ci/run runs the demo
@pytest.mark.usefixtures("tiny")
def test_the_line_on_synthetic_slides_says_so_and_resumes(tmp_path: Path) -> None:
    config = Config(out=tmp_path / "demo", size="small")
    first = run_demo(config)
    assert first.exit_code == 0 and first.tiling.tiles >= 32
    page = first.report.html.read_text()
    assert "synthetic" in page and "synthetic" in first.report.markdown.read_text()
    for row in ("barlow_twins", "dino", "random/resnet10t", "colour_histogram", "stain-shift-v1"):
        assert row in page, row
    before = (tmp_path / "demo" / "runs" / "dino" / "encoder" / "model.safetensors").read_bytes()
    again = run_demo(config)
    assert again.tiling.done == 0 and again.tiling.skipped == 1
    after = (tmp_path / "demo" / "runs" / "dino" / "encoder" / "model.safetensors").read_bytes()
    assert before == after
    with pytest.raises(InputError, match="holds a small demo on synthetic"):
        run_demo(replace(config, size="full"))


@pytest.mark.usefixtures("tiny")
@pytest.mark.slow
def test_the_line_on_real_slides_quarantines_the_bad_ones(
    tmp_path: Path, shared_data: Path
) -> None:
    labelled = tmp_path / "labelled"
    for name in ("colon_image_sets/colon_n", "colon_image_sets/colon_aca"):
        images = sorted((shared_data / "lc25000" / name).glob("*.jpeg"))[:30]
        folder = labelled / Path(name).name
        folder.mkdir(parents=True)
        for image in images:
            (folder / image.name).symlink_to(image)
    config = Config(
        out=tmp_path / "demo", slides=(shared_data / "slides",), labelled=labelled, size="small"
    )
    outcome = run_demo(config)
    assert outcome.exit_code == 3
    reasons = {Path(record.path).name: record.reason for record in outcome.tiling.quarantined}
    assert "--slide-mpp" in (reasons["tcga-cr-7395-01a-01-ts1.svs"] or "")
    assert {"broken.svs", "unopenable.tiff", "unreadable.svs"} <= set(reasons)
    assert outcome.tiling.done == 1
    page = outcome.report.html.read_text()
    assert "synthetic" not in page and "random/resnet10t" in page
    mended = run_demo(replace(config, out=tmp_path / "mended", slide_mpp=0.25))
    assert "tcga-cr-7395-01a-01-ts1.svs" not in {
        Path(record.path).name for record in mended.tiling.quarantined
    }
    assert mended.tiling.tiles > outcome.tiling.tiles


def test_half_given_input_is_refused() -> None:
    with pytest.raises(UsageError, match="--slides is given without --labelled"):
        Config(slides=(Path("x"),))
    with pytest.raises(UsageError, match="--labelled is given without --slides"):
        Config(labelled=Path("x"))


def test_two_methods_and_two_sizes() -> None:
    for size in demo.SIZES.values():
        methods = {recipes.load(name).method_name for name in size.tiles_seen}
        assert methods == {"barlow_twins", "dino"}
