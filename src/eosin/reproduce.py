"""`eosin reproduce paper`: the study of Kang et al., CVPR 2023, with what is at hand."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from eosin import plugins
from eosin.datasets._base import Options, resolve_root
from eosin.embeddings import extract
from eosin.errors import InputError, UsageError
from eosin.results.files import read_predictions, read_results
from eosin.results.schema import Result
from eosin.results.statistics import measure_mean
from eosin.tasks import _plan
from eosin.tasks._evaluate import Config as EvaluateConfig
from eosin.tasks._evaluate import evaluate
from eosin.weights import load_encoder

ENCODERS: Mapping[str, str] = {
    "resnet50.imagenet": "supervised, ImageNet",
    "resnet50.lunit_mocov2": "MoCo v2, TCGA",
    "resnet50.lunit_swav": "SwAV, TCGA",
    "resnet50.lunit_bt": "Barlow Twins, TCGA",
    "vit_small_patch16.imagenet": "supervised, ImageNet",
    "vit_small_patch16.imagenet_dino": "DINO, ImageNet",
    "vit_small_patch16.lunit_dino": "DINO, TCGA",
    "vit_small_patch8.imagenet_dino": "DINO, ImageNet",
    "vit_small_patch8.lunit_dino": "DINO, TCGA",
}
"""The encoders of the study and their pre-training; random ones join by themselves."""

DATASETS = ("bach", "crc", "patch_camelyon", "mhist", "consep")
TABLES = {
    "linear": "Linear evaluation, accuracy",
    "finetune": "Fine-tuning, accuracy",
    "nuclei_frozen": "Nuclei with a frozen encoder, mPQ",
    "nuclei": "Nuclei with a fine-tuned encoder, mPQ",
}
PROTOCOL = "paper"
NO_VALUES = (
    "The paper's own numbers are not shipped: its tables could not be consulted when Eosin was"
    " written, and none is filled in from memory. The column `paper` stays empty until then."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which study, and where its results go."""

    study: Annotated[Literal["paper"], tyro.conf.Positional]
    """What is reproduced."""
    out: Path = Path("paper")
    """Folder for the results, and for the embeddings that a later run takes up again."""
    plan: bool = False
    """Only say what there is to do, what is missing, and how long it takes."""
    seeds: int = 5
    """How often what is random is repeated."""
    task: tuple[str, ...] = tuple(TABLES)
    """Parts of the study."""
    encoders: tuple[str, ...] = tuple(ENCODERS)
    """Encoders of the study, or your own beside them."""
    on: tuple[Path, ...] = tuple(Path(name) for name in DATASETS)
    """Data sets of the study: names of installed ones, or folders."""
    embedding: Annotated[extract.Config, tyro.conf.OmitArgPrefixes] = field(
        default_factory=extract.Config
    )

    def __post_init__(self) -> None:
        unknown = [task for task in self.task if task not in TABLES]
        if unknown or not self.task:
            raise UsageError(f"--task must be of {', '.join(TABLES)}.")


@dataclass(frozen=True, kw_only=True)
class AtHand:
    """What of the study is on this machine, and what to do for the rest."""

    encoders: tuple[str, ...]
    datasets: tuple[Path, ...]
    missing: tuple[str, ...]


def find(config: Config) -> AtHand:
    """Looks which encoders and data sets are here; nothing is downloaded."""
    encoders = dict(_sorted_out(config.encoders, load_encoder))
    wanted = [name for name in config.on if _is_for(str(name), config.task)]
    datasets = dict(_sorted_out(wanted, resolve_root))
    missing = [
        f"encoder {name} ({ENCODERS.get(str(name), 'your own')}): {why}"
        for name, why in encoders.items()
        if why
    ]
    missing += [
        f"data set {name} ({_licence(str(name))}): {why}" for name, why in datasets.items() if why
    ]
    return AtHand(
        encoders=tuple(str(name) for name, why in encoders.items() if not why),
        datasets=tuple(Path(name) for name, why in datasets.items() if not why),
        missing=tuple(missing),
    )


def plan(config: Config) -> tuple[list[str], dict[str, Any]]:
    """Says what is here and what is missing, counts the jobs and measures their time.

    Returns:
        Lines for people, and the same for machines.
    """
    hand = find(config)
    said = [f"Missing: {each}" for each in hand.missing]
    facts: dict[str, Any] = {"missing": list(hand.missing), "plan": []}
    if hand.encoders and hand.datasets:
        works = _plan.plan(_evaluation(config, hand))
        said += _plan.lines(works)
        facts["plan"] = _plan.facts(works)
    else:
        said.append("Nothing can be run: at least one encoder and one data set must be here.")
    return said, facts


def run(config: Config) -> tuple[list[str], dict[str, Any]]:
    """Runs the study with what is here, and gives the paper's tables with ours beside.

    Returns:
        Lines for people, and the same for machines.

    Raises:
        InputError: neither an encoder nor a data set is here.
    """
    hand = find(config)
    for each in hand.missing:
        print(f"Missing: {each}", file=sys.stderr)
    if not hand.encoders or not hand.datasets:
        what = "encoder" if not hand.encoders else "data set"
        raise InputError(
            f"No {what} of the study is on this machine, so nothing can be run; see what to do "
            f"with: eosin reproduce {config.study} --plan"
        )
    evaluate(_evaluation(config, hand))
    rows = [row for row in read_results(config.out) if row.protocol.id == PROTOCOL]
    cells = {task: dict(_cells(task, rows)) for task in config.task}
    said: list[str] = []
    for task in config.task:
        said += [*_table(TABLES[task], cells[task]), ""]
    said += [f"Missing: {each}" for each in hand.missing]
    facts = {
        "missing": list(hand.missing),
        "tables": {
            task: [
                {"encoder": encoder, "dataset": dataset, "paper": None, "ours": ours}
                for (encoder, dataset), ours in of_task.items()
            ]
            for task, of_task in cells.items()
        },
    }
    return [*said, NO_VALUES], facts


def _evaluation(config: Config, hand: AtHand) -> EvaluateConfig:
    return EvaluateConfig(
        encoders=hand.encoders,
        on=hand.datasets,
        out=config.out,
        task=config.task,
        protocol=(PROTOCOL,),
        seeds=config.seeds,
        shift_test=False,
        grouping=Options(),
        embedding=config.embedding,
    )


def _sorted_out(names: Sequence[Any], find_it: Any) -> Iterator[tuple[Any, str]]:
    """Yields each name with why it is not here, which is empty where it is."""
    for name in names:
        try:
            find_it(name)
            yield name, ""
        except InputError as error:
            yield name, str(error)


def _is_for(name: str, tasks: Sequence[str]) -> bool:
    """Whether one of the tasks is for the images of a data set; of your own nothing is known."""
    if name not in plugins.names("datasets"):
        return True
    has_instances = plugins.load("datasets", name).INFO.holds != "labels"
    return any(has_instances == plugins.load("tasks", task).TAKES_INSTANCES for task in tasks)


def _licence(name: str) -> str:
    if name not in plugins.names("datasets"):
        return "your own"
    return plugins.load("datasets", name).INFO.licence


def _cells(task: str, rows: Sequence[Result]) -> Iterator[tuple[tuple[str, str], dict[str, float]]]:
    """Yields our accuracy, or mPQ, for each encoder and data set, the mean over seeds."""
    of_task = [row for row in rows if row.task == task]
    for encoder, dataset in dict.fromkeys((row.encoder.name, row.data.name) for row in of_task):
        runs = [
            read_predictions(row)
            for row in of_task
            if (row.encoder.name, row.data.name) == (encoder, dataset)
        ]
        metric = measure_mean(runs, next(row.metric for row in of_task))
        yield (
            (encoder, dataset),
            {"value": metric.value, "low": metric.low, "high": metric.high, "runs": len(runs)},
        )


def _table(title: str, cells: Mapping[tuple[str, str], Mapping[str, float]]) -> list[str]:
    datasets = list(dict.fromkeys(dataset for _, dataset in cells))
    encoders = list(dict.fromkeys(encoder for encoder, _ in cells))
    lines = [f"{title} in % [95 % interval] (paper | ours)"]
    lines.append("  ".join([f"{'encoder':<34}", *(f"{name:<28}" for name in datasets)]).rstrip())
    for encoder in encoders:
        texts = [_cell(cells.get((encoder, dataset))) for dataset in datasets]
        lines.append("  ".join([f"{encoder:<34}", *(f"{text:<28}" for text in texts)]).rstrip())
    return lines


def _cell(ours: Mapping[str, float] | None) -> str:
    if ours is None:
        return "- | not measured"
    value, low, high = (100 * ours[name] for name in ("value", "low", "high"))
    return f"- | {value:.1f} [{low:.1f}, {high:.1f}]"
