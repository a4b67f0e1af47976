import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.errors import InputError
from eosin.results.schema import (
    DataStamp,
    EncoderStamp,
    Metric,
    Predictions,
    ProtocolStamp,
    Result,
)

FILE = Path("results/job-1.jsonl")


def row(**changes):
    fields = {
        "task": "knn",
        "protocol": ProtocolStamp(id="strict", version=1),
        "encoder": EncoderStamp(
            name="resnet18",
            weights_sha256="w",
            transform="t",
            pooling="average",
            precision="fp32",
            embed_dim=512,
        ),
        "data": DataStamp(
            name="d",
            manifest_sha256="m",
            split_sha256="s",
            n_train=3,
            n_test=2,
            classes=("a", "b"),
        ),
        "seed": 0,
        "selection": {"split": "valid", "k": 20},
        "metrics": {"accuracy": Metric(value=0.5, low=0.25, high=0.75)},
        "seconds": 1.0,
        "provenance": {"created": "2026-01-01"},
    }
    return Result(**{**fields, **changes})


names = st.text(min_size=1)
values = st.floats(0, 1)


@settings(max_examples=40, deadline=None)
@given(
    name=names,
    classes=st.lists(names, min_size=1).map(tuple),
    metrics=st.dictionaries(names, st.builds(Metric, value=values, low=values, high=values)),
    fraction=st.floats(0.001, 1),
    selection=st.dictionaries(names, st.none() | st.booleans() | st.integers() | values | names),
)
def test_a_row_survives_its_json_line(name, classes, metrics, fraction, selection):
    start = row()
    whole = row(
        encoder=replace(start.encoder, name=name),
        data=replace(start.data, classes=classes),
        metrics=metrics,
        label_fraction=fraction,
        selection=selection,
    )
    line = whole.to_json_line()
    assert "\n" not in line
    assert Result.from_json_line(line, FILE, 1) == whole


def test_the_row_remembers_the_folder_it_was_read_from():
    assert Result.from_json_line(row().to_json_line(), FILE, 1).folder == FILE.parent


def test_rows_that_measure_something_else_have_another_id():
    start = row()
    others = [
        row(task="linear"),
        row(protocol=ProtocolStamp(id="strict", version=2)),
        row(protocol=ProtocolStamp(id="eva-2025-03", version=1)),
        row(encoder=replace(start.encoder, weights_sha256="other")),
        row(encoder=replace(start.encoder, transform="other")),
        row(encoder=replace(start.encoder, pooling="cls")),
        row(encoder=replace(start.encoder, precision="bf16")),
        row(data=replace(start.data, manifest_sha256="other")),
        row(data=replace(start.data, split_sha256="other")),
        row(data=replace(start.data, shift="stain-shift-v1")),
        row(label_fraction=0.1),
        row(draw=1),
        row(seed=1),
    ]
    assert len({start.row_id, *(other.row_id for other in others)}) == len(others) + 1


def test_the_same_measurement_has_the_same_id():
    again = row(seconds=9.0, provenance={}, metrics={}, selection={}, label_fraction=1)
    assert again.row_id == row().row_id


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("metrics"), "lacks metrics"),
        (lambda content: content["encoder"].pop("pooling"), r"lacks encoder\.pooling"),
        (lambda content: content.update(surprise=1), "unknown surprise"),
        (lambda content: content.update(schema_version=1), "schema_version is 1 .* evaluate again"),
        (lambda content: content.pop("schema_version"), "schema_version is None"),
        (lambda content: content.update(seed="zero"), "seed is 'zero'"),
        (lambda content: content["data"].update(classes="ab"), r"data\.classes is 'ab'"),
        (lambda content: content.update(data=[]), "data is"),
        (lambda content: content["metrics"].update(f1={"value": 1}), r"metrics\.f1\.low"),
        (lambda content: content.update(seed=5), "row was edited"),
    ],
)
def test_a_wrong_row_is_refused_with_file_and_line(change, words):
    content = json.loads(row().to_json_line())
    change(content)
    with pytest.raises(InputError, match=words) as caught:
        Result.from_json_line(json.dumps(content), FILE, 7)
    assert f"{FILE}, line 7" in str(caught.value)


@pytest.mark.parametrize("line", ['{"half', "[1, 2]", "null", '"text"'])
def test_what_is_no_row_is_refused_with_file_and_line(line):
    with pytest.raises(InputError, match="line 3"):
        Result.from_json_line(line, FILE, 3)


def test_a_value_that_json_cannot_hold_is_not_written():
    nan = row(metrics={"auroc": Metric(value=float("nan"), low=0.0, high=1.0)})
    with pytest.raises(ValueError):
        nan.to_json_line()


@pytest.mark.parametrize(
    "change",
    [
        {"label": np.array([0])},
        {"label": np.array([0, 2])},
        {"predicted": np.array([-1, 0])},
        {"scores": np.zeros(2, np.float32)},
    ],
)
def test_predictions_that_do_not_fit_together_are_refused(change):
    fitting = {
        "sample": np.array(["a", "b"]),
        "group": np.array(["p", "p"]),
        "label": np.array([0, 1]),
        "predicted": np.array([0, 1]),
        "scores": np.eye(2, dtype=np.float32),
    }
    Predictions(**fitting)
    with pytest.raises(ValueError):
        Predictions(**{**fitting, **change})
