"""LC25000: lung and colon tissue, many images of each of few original ones."""

import sys
from functools import cache
from pathlib import Path

from eosin.datasets._base import ALL, NO_GROUPS, Info, LabelledImages, Options, wrong_tree
from eosin.datasets._files import Entry, FileSet, make_file_set, strays, walk_files
from eosin.datasets._findings import Finding
from eosin.datasets._groups import find_groups
from eosin.datasets._verify import verify_files
from eosin.images.files import SUFFIXES

CLASSES = ("colon_aca", "colon_n", "lung_aca", "lung_n", "lung_scc")

INFO = Info(
    title="LC25000, Lung and Colon Cancer Histopathological Image Dataset",
    licence='free to use "in any way they see fit", with the paper cited',
    licence_url="https://github.com/tampapath/lung_colon_image_set",
    citation="Borkowski et al. 2019, Lung and Colon Cancer Histopathological Image Dataset "
    "(LC25000), arXiv:1912.12142",
    source="https://github.com/tampapath/lung_colon_image_set",
    expected_tree="""
[lung_colon_image_set/]
  colon_image_sets/  colon_aca/*.jpeg colon_n/
  lung_image_sets/   lung_aca/ lung_n/ lung_scc/
  [source_images.csv: columns class, file, source_image]
""",
    classes=CLASSES,
    class_counts={ALL: dict.fromkeys(CLASSES, 5_000)},
    groups="source image, by source_images.csv, which is not part of the archive; without it a "
    "random division has images of one original on both sides, and the test is no test",
    division="ours: --test-share of each class, whole source images at a time",
    image_px=(768, 768),
    download_bytes=1_850_000_000,
    installed_bytes=1_900_000_000,
    how_to_get=(
        "Download LC25000.zip (1.85 GB), which https://github.com/tampapath/lung_colon_image_set "
        "links to, and unpack it into {root}",
        "Make source_images.csv (columns class, file, source_image) from the clusters that "
        "https://github.com/GeorgeBatch/LC25000-clean publishes, and put it beside "
        "colon_image_sets/ and lung_image_sets/",
    ),
    remarks=(
        "The 25,000 images were made by rotating and flipping 1,250 originals: a random division "
        "leaks. Figures of 99 % and more are of such divisions.",
    ),
)

_LEAKS = "source_images.csv is missing, so it is not known which images were made of one original"


def recognises(root: Path) -> bool:
    """Whether `colon_image_sets` or `lung_image_sets` lies in `root`, or one folder below."""
    return _base(root) is not None


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits that `load` takes here."""
    return _scan(root, options).splits


def load(root: Path, split: str, options: Options) -> LabelledImages:
    """Loads one split of our division; without source images it warns that the division leaks.

    Raises:
        InputError: the tree is another one, a class cannot be divided, or an image cannot be read.
    """
    files = _scan(root, options)
    if any(finding.kind == "group" for finding in files.findings):
        _warn(files.root)
    return files.load(split)


def verify(root: Path, options: Options) -> list[Finding]:
    """Checks the tree against what is published, decodes every image, and asks for its sources."""
    return verify_files(_scan(root, options), INFO)


def _base(root: Path) -> Path | None:
    for base in (root, root / "lung_colon_image_set"):
        if any((base / f"{organ}_image_sets").is_dir() for organ in ("colon", "lung")):
            return base
    return None


def _scan(root: Path, options: Options) -> FileSet:
    base = _base(root)
    if base is None:
        raise wrong_tree(root, "no colon_image_sets/ or lung_image_sets/.", INFO.expected_tree)
    files = [name for name in walk_files(base) if name.partition("/")[0].endswith("_image_sets")]
    images = {name: _class_of(name) for name in files if _class_of(name)}
    ids, of_classes = list(images), list(images.values())
    classes = [name for name in CLASSES if name in of_classes]
    if len(classes) < 2:
        raise wrong_tree(root, "no images of two classes.", INFO.expected_tree)
    groups, grouped_by = find_groups(base, ids, of_classes, options)
    findings = strays(
        base, [name for name in files if name not in images], "is in no class's folder"
    )
    if grouped_by == "image" and options.group_column != NO_GROUPS:
        sentence = f"{base}: {_LEAKS}; a random division leaks."
        findings.append(Finding(kind="group", where=str(base), sentence=sentence))
    entries = [
        Entry(id=name, of_class=of_class, group=group)
        for name, of_class, group in zip(ids, of_classes, groups.tolist(), strict=True)
    ]
    own = Options(test_share=options.test_share, split_seed=options.split_seed)
    return make_file_set(
        "lc25000", base, classes, entries, own, grouped_by=grouped_by, findings=findings
    )


def _class_of(name: str) -> str:
    """Gives the class of an image by its place; empty where it has none."""
    organ, *between, file = name.split("/")
    is_image = len(between) == 1 and Path(file).suffix.lower() in SUFFIXES
    is_place = is_image and between[0] in CLASSES and between[0].startswith(organ.partition("_")[0])
    return between[0] if is_place else ""


@cache
def _warn(base: Path) -> None:
    print(
        f"{base}: {_LEAKS}. A random division leaks: the scores will be far too high. How to get "
        "the sources: eosin datasets info lc25000",
        file=sys.stderr,
    )
