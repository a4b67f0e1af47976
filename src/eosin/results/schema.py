"""A result row that describes itself, and the predictions behind it.

Rows and predictions are written and read by `eosin.results.files`.
"""

import json
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from eosin.errors import InputError
from eosin.provenance import plain, sha256_of
from eosin.results.instance_counts import InstanceCounts

SCHEMA_VERSION = 2
ROW_ID_DIGITS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A measured value in [0, 1] with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderStamp:
    """Which encoder made the embeddings, down to what changes their values."""

    name: str
    """`random/<architecture>` and `colour_histogram` are the baselines that tables look for."""
    weights_sha256: str
    """For an encoder without weights: the hash of the settings that determine its output."""
    transform: str
    """From the stored image to the encoder's input: size, interpolation, mean and std."""
    pooling: str
    precision: str
    embed_dim: int
    architecture: str = ""
    """What a random baseline shares with it, such as `resnet18`; empty: read from the name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataStamp:
    """Which images and labels were used."""

    name: str
    manifest_sha256: str
    split_sha256: str
    n_train: int
    n_test: int
    classes: tuple[str, ...]
    shift: str = "none"
    """What was done to the test images: `none` or `stain-shift-v1`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolStamp:
    """The named, versioned settings of the task."""

    id: str
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One measured row: everything that is needed to read it, repeat it and compare it.

    `row_id` is computed from what identifies the row and need not be given.
    """

    task: str
    """Such as `linear` or `knn`."""
    protocol: ProtocolStamp
    encoder: EncoderStamp
    data: DataStamp
    label_fraction: float = 1.0
    draw: int = 0
    """Which of several random subsets of the labels was used."""
    seed: int
    selection: dict[str, Any]
    """The split that selected the hyper-parameters, and what it chose."""
    metrics: dict[str, Metric]
    metric: str = "balanced_accuracy"
    """The one that the protocol reports."""
    episodes: int = 0
    """Over how many draws of labelled images the metrics are means; 0: there is one fit."""
    predictions: str = ""
    """File name of the predictions, relative to the row file; filled in when the row is written."""
    seconds: float
    provenance: dict[str, Any]
    row_id: str = ""
    schema_version: int = SCHEMA_VERSION
    folder: Path | None = field(default=None, compare=False)
    """Where the row was read from or written to; not part of the row."""

    def __post_init__(self) -> None:
        expected = self._identity()
        if self.row_id and self.row_id != expected:
            raise InputError(
                f"row_id {self.row_id} does not belong to this row (expected {expected}): "
                "the row was edited; evaluate again."
            )
        object.__setattr__(self, "row_id", expected)

    def _identity(self) -> str:
        identifying = {
            "task": self.task,
            "protocol": [self.protocol.id, self.protocol.version],
            "encoder": [
                self.encoder.weights_sha256,
                self.encoder.transform,
                self.encoder.pooling,
                self.encoder.precision,
            ],
            "data": [self.data.name, self.data.manifest_sha256, self.data.split_sha256],
            "shift": self.data.shift,
            "label_fraction": float(self.label_fraction),
            "draw": self.draw,
            "seed": self.seed,
        }
        return sha256_of(identifying)[:ROW_ID_DIGITS]

    def to_json_line(self) -> str:
        """Writes the row as one line of JSON, without the line end."""
        content = plain(self)
        del content["folder"]
        return json.dumps(content, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json_line(cls, line: str, file: Path, number: int) -> "Result":
        """Reads a row.

        Args:
            line: one JSON object.
            file: where the line comes from, for messages.
            number: the line's number in the file, from 1.

        Raises:
            InputError: it is not JSON, of another schema version, or a key is missing, unknown or
                of the wrong type; the message names the file and the line.
        """
        where = f"{file}, line {number}"
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not a line of JSON ({error}); evaluate again.") from None
        if not isinstance(content, dict):
            raise InputError(f"{where}: not a JSON object, so not a result row.")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{where}: schema_version is {version!r} and this Eosin reads {SCHEMA_VERSION}; "
                "delete the file, or give another --out, and evaluate again."
            )
        try:
            return _decoded(cls, {**content, "folder": file.parent}, "")
        except InputError as error:
            raise InputError(f"{where}: {error}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """What a fitted probe said about each test sample.

    All arrays have one entry per sample; `scores` is `[samples, classes]`, larger meaning more
    likely. `group` names the patient, slide or source image; where there is none, each sample is
    its own group (`group` equal to `sample`). With `is_share` a score is the share of many episodes
    that chose the class; accuracies are then means over the episodes.

    Raises:
        ValueError: the lengths differ, or a label or prediction is not a column of `scores`.
    """

    sample: npt.NDArray[np.str_]
    group: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    is_share: bool = False

    def __post_init__(self) -> None:
        arrays = [each.name for each in fields(self) if each.name != "is_share"]
        counts = {len(getattr(self, name)) for name in arrays}
        if len(counts) != 1 or self.scores.ndim != 2:
            raise ValueError(f"predictions of unequal lengths: {sorted(counts)}")
        classes = self.scores.shape[1]
        for name in ("label", "predicted"):
            values = getattr(self, name)
            if len(values) and not (values.min() >= 0 and values.max() < classes):
                raise ValueError(f"{name} must lie in 0..{classes - 1}, the columns of scores")


Measurable = Predictions | InstanceCounts
"""What metrics are computed from, a row for each test image."""


def _decoded(kind: Any, content: Any, name: str) -> Any:
    """Turns JSON into `kind`, refusing whatever does not fit; `name` is the key, for messages."""
    if is_dataclass(kind):
        return _decoded_dataclass(kind, content, name)
    origin = get_origin(kind)
    if origin is tuple and isinstance(content, list):
        return tuple(_decoded(get_args(kind)[0], each, name) for each in content)
    if origin is dict and isinstance(content, dict):
        inner = get_args(kind)[1]
        return {key: _decoded(inner, each, f"{name}.{key}") for key, each in content.items()}
    if kind is float and type(content) in (int, float):
        return float(content)
    if kind is Any or isinstance(kind, types.UnionType) or type(content) is kind:
        return content
    raise InputError(f"{name} is {content!r}, which is not of the type {kind}; evaluate again.")


def _decoded_dataclass(kind: Any, content: Any, name: str) -> Any:
    if not isinstance(content, Mapping):
        raise InputError(f"{name} is {content!r} and should be an object; evaluate again.")
    hints = get_type_hints(kind)
    prefix = f"{name}." if name else ""
    missing = [prefix + key for key in hints if key not in content]
    unknown = [prefix + str(key) for key in content if key not in hints]
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise InputError(f"the row {what}; it is not a result row of this version.")
    return kind(**{key: _decoded(hints[key], content[key], prefix + key) for key in hints})
