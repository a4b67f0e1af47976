"""`eosin audit`: what makes the numbers of a benchmark untrustworthy."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eosin.atomic import locked, remove_leftovers, write_json
from eosin.audit import comparing, duplicates, findings, overlap, pair_sheet
from eosin.audit.comparing import Compared, Looked
from eosin.audit.config import Config
from eosin.audit.explaining import explain
from eosin.audit.findings import Finding
from eosin.datasets._base import LabelledImages, check_labelled, find_dataset, resolve_root
from eosin.embeddings.sources import Source, StoreTiles, open_source
from eosin.errors import InputError
from eosin.provenance import plain, stamp

SCHEMA_VERSION = 1
AUDIT_FILE = "audit.json"

_IMAGES_OF_A_FOLDER = "images"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an audit found, and where it is written."""

    findings: tuple[Finding, ...]
    audit: Path
    sheets: tuple[Path, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that make a number untrustworthy."""
        return tuple(finding for finding in self.findings if finding.is_problem)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Dataset:
    name: str
    splits: Mapping[str, LabelledImages]


def audit(config: Config) -> Report:
    """Audits datasets, and writes `audit.json` and sheets of the closest pairs.

    Every image is read once for the comparison, and once more where probes need its embedding.

    Raises:
        InputError: a dataset, a store or the encoder does not exist or is not as it should be, or
            another run is writing in the folder.
    """
    stores = {path: open_source(path) for path in config.store}
    datasets = _load(config)
    with locked(config.out):
        remove_leftovers(config.out)
        found, compared = _compare(datasets, stores, config)
        for one in datasets:
            found += _overlaps(one, stores)
        if config.scores:
            for one in datasets:
                found += explain(one.name, one.splits, compared[one.name], config)
        sheets = [path for one in datasets for path in _sheets(one.name, compared, config.out)]
        path = config.out / AUDIT_FILE
        write_json(path, _as_json(found, compared, config))
    return Report(findings=tuple(found), audit=path, sheets=tuple(sheets))


def _load(config: Config) -> list[_Dataset]:
    datasets: list[_Dataset] = []
    for root in map(resolve_root, config.on):
        module = find_dataset(root, config.dataset)
        check_labelled(module, root)
        names = module.splits(root, config.grouping)
        splits = {name: module.load(root, name, config.grouping) for name in names}
        if not set(comparing.JUDGED) & splits.keys():
            raise InputError(
                f"{root} has the splits {', '.join(names)} and no test split; nothing in it should "
                "be new."
            )
        name = next(iter(splits.values())).dataset
        if name in {each.name for each in datasets}:
            name = f"{name} ({root})"
        counts = ", ".join(f"{len(images):,} {split}" for split, images in splits.items())
        print(f"{name}: {counts} images", file=sys.stderr)
        datasets.append(_Dataset(name=name, splits=splits))
    return datasets


def _compare(
    datasets: Sequence[_Dataset], stores: Mapping[str, Source], config: Config
) -> tuple[list[Finding], dict[str, list[Compared]]]:
    found: list[Finding] = []
    compared: dict[str, list[Compared]] = {}
    judged: list[comparing.Judged] = []
    for one in datasets:
        described, looked = comparing.look_at(one.name, one.splits)
        judged.append(described)
        compared[one.name], of_train = comparing.compare_splits(
            described, one.splits.get("train"), config.correlation
        )
        for each in [*looked, *of_train]:
            found += _left_out(one.name, each)
    for path, source in stores.items():
        of_store, looked = comparing.compare_with(path, source, judged, config.correlation)
        for one, each in zip(datasets, of_store, strict=True):
            compared[one.name] += each
        found += _left_out(path, looked)
    for name, each in compared.items():
        found += [_finding(name, one) for one in each]
    return found, compared


def _finding(dataset: str, compared: Compared) -> Finding:
    return findings.near_duplicates(
        dataset,
        (compared.split, len(compared.queries)),
        (compared.against, len(compared.references)),
        list(_pairs(compared)),
    )


def _pairs(compared: Compared) -> Iterator[dict[str, Any]]:
    for pair in compared.pairs:
        facts = asdict(pair)
        del facts["query"], facts["reference"]
        yield {
            "image": compared.queries.name(pair.query),
            "like": compared.references.name(pair.reference),
            "split": compared.split,
            "against": compared.against,
            **facts,
        }


def _left_out(dataset: str, looked: Looked) -> Iterator[Finding]:
    total = len(looked.images)
    parts = {
        "near-constant": looked.left_out.near_constant,
        "unreadable": looked.left_out.unreadable,
    }
    for what, numbers in parts.items():
        if len(numbers) == total and what == "unreadable":
            reason = next(iter(looked.left_out.unreadable.values()))
            raise InputError(f"None of the images of {looked.title} can be read: {reason}")
        if numbers:
            names = [looked.images.name(number) for number in numbers]
            yield findings.left_out(dataset, looked.title, what, names, total)


def _overlaps(one: _Dataset, stores: Mapping[str, Source]) -> Iterator[Finding]:
    splits = list(one.splits.items())
    for place, (first, ours) in enumerate(splits):
        for second, theirs in splits[place + 1 :]:
            if ours.grouped_by != "image":
                shared = overlap.shared_groups(ours, theirs)
                what = f"groups ({ours.grouped_by})"
                yield findings.overlap(one.name, what, first, second, shared)
            shared = overlap.shared_patients(overlap.names_of(ours), overlap.names_of(theirs))
            if shared or _has_barcodes(ours):
                yield findings.overlap(one.name, "TCGA patients", first, second, shared)
    for path, source in stores.items():
        slides = _slides_of(source)
        names = overlap.names_of_slides(slides) if slides else _names_of(source)
        for split, images in splits:
            patients = overlap.shared_patients(names, overlap.names_of(images))
            if patients or _has_barcodes(images):
                yield findings.overlap(one.name, "TCGA patients", path, split, patients)
            same = overlap.slides_in(slides, images)
            if slides:
                yield findings.overlap(one.name, "slides or patients by name", path, split, same)


def _has_barcodes(images: LabelledImages) -> bool:
    return any(overlap.patient_of(name) for name in overlap.names_of(images))


def _slides_of(source: Source) -> list[overlap.Slide]:
    if not isinstance(source, StoreTiles):
        return []
    rows = source.store.slide_table.select(["slide_id", "path", "patient"]).to_pylist()
    return [overlap.Slide(**row) for row in rows]


def _names_of(source: Source) -> list[str]:
    return [source.name(number) for number in range(len(source))]


def _sheets(dataset: str, compared: Mapping[str, Sequence[Compared]], out: Path) -> Iterator[Path]:
    for number, each in enumerate(compared[dataset]):
        if each.pairs:
            place = list(compared).index(dataset)
            path = out / f"pairs-{place}-{number}-{each.split}.png"
            queries, references = each.queries, each.references
            pair_sheet.draw(
                pair_sheet.choose(each.pairs),
                (queries.read, queries.name),
                (references.read, references.name),
                path,
            )
            yield path


def _as_json(
    found: Sequence[Finding], compared: Mapping[str, Sequence[Compared]], config: Config
) -> dict[str, Any]:
    datasets: dict[str, Any] = {}
    for name, each in compared.items():
        pairs = [pair for one in each for pair in _pairs(one)]
        groups = duplicates.group(
            (f"{pair['split']}: {pair['image']}", f"{pair['against']}: {pair['like']}")
            for pair in pairs
        )
        datasets[name] = {"pairs": pairs, "groups": groups}
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": plain(config),
        "findings": plain(list(found)),
        "datasets": datasets,
        "provenance": stamp(),
    }
