"""The tasks as a whole, on small encoders and drawn discs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eosin.embeddings.embedded import stamp_data, stamp_encoder
from eosin.encoders import build_encoder
from eosin.errors import Diverged, InputError
from eosin.images import stain_shift
from eosin.nuclei.model_files import load_segmenter
from eosin.nuclei.predicting import NucleiPredictor
from eosin.nuclei.settings import Phase, Training
from eosin.protocols._base import find_protocol
from eosin.report.html import Config as ReportConfig
from eosin.report.html import write_report
from eosin.results.files import write_job
from eosin.results.instance_counts import InstanceCounts
from eosin.results.verify import Config as VerifyConfig
from eosin.results.verify import verify
from eosin.tasks import nuclei, nuclei_frozen
from eosin.tasks._base import Inputs, Job
from eosin.tasks._grid import row_ids
from tests.nuclei.discs import CLASSES, images
from tests.nuclei.test_training import SHORT

ENCODER = build_encoder("timm/test_efficientnet", input_px=48, seed=0).eval()
STRICT = find_protocol("strict")


def make_inputs(out: Path, *, train: int = 6, valid: int = 0, test: int = 3) -> Inputs:
    splits = {"train": images("train", train), "test": images("test", test)}
    splits |= {"valid": images("valid", valid)} if valid else {}
    return Inputs(
        encoder=ENCODER,
        splits={},
        instances=splits,
        embed=lambda: pytest.fail("nothing is embedded"),
        encoder_stamp=stamp_encoder(ENCODER, "fp32"),
        data_stamp=stamp_data(splits),
        shifts=("none", stain_shift.NAME),
        folder=out / "unfinished",
        kept=out / "models",
    )


def job(training: Training = SHORT, name: str = "nuclei", **changes) -> Job:
    return Job(task=name, protocol=replace(STRICT, nuclei=training), **changes)


def test_it_trains_chooses_scores_and_keeps_the_network(tmp_path: Path) -> None:
    inputs, asked = make_inputs(tmp_path), job()
    before = ENCODER.weights_sha256()
    rows = nuclei.run(asked, inputs)
    assert ENCODER.weights_sha256() == before
    assert [row.row_id for row, _ in rows] == row_ids(asked, inputs)
    (clean, counts), (shifted, _) = rows
    assert (clean.data.shift, shifted.data.shift) == ("none", stain_shift.NAME)
    assert isinstance(counts, InstanceCounts) and counts.types == CLASSES
    assert counts.sample.tolist() == ["test/0", "test/1", "test/2"]
    true = [len(inputs.instances["test"].read(number).types) for number in range(3)]
    tp, _, fn, _ = counts.matched.T
    assert (tp + fn).tolist() == true
    assert {"pq", "mpq", "mpq_plus", "aji", "f_detection"} <= clean.metrics.keys()
    assert clean.metric == "pq"
    # One of three patients is held out.
    assert clean.selection["split"] == "2 held-out training images"
    assert clean.selection["n_fit"] == 4 and clean.selection["updates"] == [3, 5]
    assert 0 <= clean.selection["pq"] <= 1

    kept = tmp_path / "models" / clean.row_id
    saved = load_segmenter(kept)
    assert saved.classes == CLASSES and saved.mpp == 0.25
    predict = NucleiPredictor(saved.network, saved.training, "fp32", torch.device("cpu"))
    found = predict(inputs.instances["test"].read(0).image, saved.mpp)
    assert int((found.instances > 0).sum()) == counts.areas[0, 1]
    assert json.loads((kept / "pictures.json").read_text())["worst"]["pq"] <= 1
    sizes = json.loads((kept / "by_size.json").read_text())
    assert sum(entry["true"] for entry in sizes) == sum(true)
    assert sum(entry["found"] for entry in sizes) == tp.sum()
    assert not list((tmp_path / "unfinished").iterdir())

    write_job(tmp_path, rows)
    assert verify(VerifyConfig(folder=tmp_path)).deviations == ()
    report = write_report(ReportConfig(results=(tmp_path,), out=tmp_path / "report"))
    page = report.html.read_text()
    assert "Nuclei by size" in page and "truth on the left" in page
    assert page.count("data:image/jpeg") == 2


def test_a_frozen_encoder_stays_bit_by_bit(tmp_path: Path) -> None:
    rows = nuclei_frozen.run(job(name="nuclei_frozen"), make_inputs(tmp_path))
    assert {row.task for row, _ in rows} == {"nuclei_frozen"}
    saved = load_segmenter(tmp_path / "models" / rows[0][0].row_id)
    assert saved.network.encoder.weights_sha256() == ENCODER.weights_sha256()


def test_what_is_chosen_on_is_what_the_protocol_says(tmp_path: Path) -> None:
    phase = Phase(epochs=0, batch_size=4, is_frozen=True, min_updates=1)
    tiny = replace(SHORT, phases=(phase,), measured=1)

    def split(training: Training = tiny, valid: int = 0, **changes) -> tuple[str, int]:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        inputs = replace(make_inputs(out, valid=valid), shifts=("none",))
        row = nuclei.run(job(training, **changes), inputs)[0][0]
        return row.selection["split"], row.selection["n_fit"]

    assert split(replace(tiny, chosen_on="test")) == ("test split, as the protocol has it", 6)
    assert split(replace(tiny, chosen_on="last")) == ("nothing is chosen", 6)
    assert split(valid=2) == ("validation split", 6)
    said, count = split(label_fraction=0.2)
    assert said.startswith("nothing is chosen: one group") and count == 2


def test_test_labels_change_nothing_but_the_score(tmp_path: Path) -> None:
    given = make_inputs(tmp_path / "a")
    rows = nuclei.run(job(), given)
    other = make_inputs(tmp_path / "b")
    blank = replace(
        images("test", 3),
        reader=lambda index: replace(
            given.instances["test"].read(index),
            instances=np.zeros((96, 96), np.int32),
            types=np.empty(0, np.int64),
        ),
    )
    other = replace(other, instances={**other.instances, "test": blank})
    again = nuclei.run(job(), other)
    assert rows[0][0].selection == again[0][0].selection
    assert np.array_equal(rows[0][1].areas[:, 1], again[0][1].areas[:, 1])


def test_divergence_is_said(tmp_path: Path) -> None:
    with pytest.raises(Diverged):
        nuclei.run(job(replace(SHORT, learning_rate=1e30)), make_inputs(tmp_path))


def test_a_damaged_network_is_named(tmp_path: Path) -> None:
    inputs = replace(make_inputs(tmp_path), shifts=("none",))
    row = nuclei.run(job(), inputs)[0][0]
    kept = tmp_path / "models" / row.row_id
    with pytest.raises(InputError, match="Did you mean"):
        load_segmenter(tmp_path)
    (kept / "decoders.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"decoders\.safetensors is damaged"):
        load_segmenter(kept)
    (kept / "segmenter.json").write_text("{")
    with pytest.raises(InputError, match=r"segmenter\.json is damaged"):
        load_segmenter(kept)
