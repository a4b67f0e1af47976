"""The five encoders that were released with Kang et al., CVPR 2023: a row of facts for each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eosin.weights.licences import LUNIT, Licence
from eosin.weights.local_records import weights_folder

RELEASE_URL = (
    "https://github.com/lunit-io/benchmark-ssl-pathology/releases/download/pretrained-weights"
)
# Where GitHub sends downloads of a release: today's host, and the one before 2025.
RELEASE_HOSTS = (
    "github.com",
    "release-assets.githubusercontent.com",
    "objects.githubusercontent.com",
)
LICENCE = LUNIT.short
# "Image statistics" of the release notes; one pair for all five files.
MEAN = (0.70322989, 0.53606487, 0.66096631)
STD = (0.21716536, 0.26081574, 0.20723464)

_IMAGENET = "ImageNet's (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)"


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """A copy of released weights in timm's format on the Hugging Face Hub: other bytes.

    Attributes:
        repo: its name there.
        statistics: the mean and std that its config declares, and how that is known.
        sha256: of its model.safetensors, where known.
    """

    repo: str
    statistics: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Released:
    """One released weight file of Kang et al., CVPR 2023.

    Attributes:
        file: its name in the release.
        key: its name in the code of the released README.
        method: how it was pre-trained.
        architecture: timm's name of the architecture.
        embed_dim: length of an embedding.
        pooling: how the encoder pools.
        sha256: of the file; None where nobody has published it.
        size_bytes: of the file; None where it is not known.
        mirror: its copy on the Hugging Face Hub.
        mean: subtracted from pixels in [0, 1].
        std: divides the result.
        input_px: side of the images that it was trained on.
        data: what it was trained on.
        licence: what its user has to accept.
        citation: the paper.
        release_url: what its address begins with.
        hosts: who may be asked for it; releases are served by way of redirects.
    """

    file: str
    key: str
    method: str
    architecture: str
    embed_dim: int
    pooling: str
    sha256: str | None
    mirror: Mirror
    size_bytes: int | None = None
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    input_px: int = 224
    data: str = "TCGA, 19 million tiles, 200 epochs of ImageNet's size"
    licence: Licence = LUNIT
    citation: str = (
        "Kang et al. 2023, Benchmarking Self-Supervised Learning on Diverse Pathology Datasets, "
        "CVPR, arXiv 2212.04690"
    )
    release_url: str = RELEASE_URL
    hosts: tuple[str, ...] = RELEASE_HOSTS

    @property
    def url(self) -> str:
        """Where it can be downloaded."""
        return f"{self.release_url}/{self.file}"

    @property
    def path(self) -> Path:
        """Where it belongs on this machine."""
        return weights_folder() / self.file


RELEASED: Mapping[str, Released] = {
    "resnet50.lunit_bt": Released(
        file="bt_rn50_ep200.torch",
        key="BT",
        method="Barlow Twins",
        architecture="resnet50",
        embed_dim=2048,
        pooling="mean",
        sha256="1ecf2f0888b598708e912cab689e797db099ec48df07d3b0b1fac04bc767f899",
        mirror=Mirror(
            repo="1aurent/resnet50.lunit_bt",
            statistics=f"{_IMAGENET} (its config.json); its BatchNorm statistics are reported to "
            "differ from those of the release",
        ),
    ),
    "resnet50.lunit_mocov2": Released(
        file="mocov2_rn50_ep200.torch",
        key="MoCoV2",
        method="MoCo v2",
        architecture="resnet50",
        embed_dim=2048,
        pooling="mean",
        sha256="caddcff7980577722e9227fb90e61364556f15978483b19a1729831e770733b6",
        mirror=Mirror(
            repo="1aurent/resnet50.lunit_mocov2",
            statistics=f"{_IMAGENET} (its config.json before the last change)",
            sha256="55b959de1606718f693fcd027a742b0bc505aea77262bc1cc404acf0c4543285",
        ),
    ),
    "resnet50.lunit_swav": Released(
        file="swav_rn50_ep200.torch",
        key="SwAV",
        method="SwAV",
        architecture="resnet50",
        embed_dim=2048,
        pooling="mean",
        sha256="bf99442e9ce3367e3895e80b4d24e7f21d74b3c791347970b91eb82bcefa366f",
        mirror=Mirror(
            repo="1aurent/resnet50.lunit_swav",
            statistics=f"{_IMAGENET} (its config.json)",
            sha256="da30e2503d14ee337537b0ee1c304de2b7bb3319bc66ecc0c28a25ec64df732c",
        ),
    ),
    "vit_small_patch16.lunit_dino": Released(
        file="dino_vit_small_patch16_ep200.torch",
        key="DINO_p16",
        method="DINO",
        architecture="vit_small_patch16_224",
        embed_dim=384,
        pooling="cls",
        sha256=None,
        mirror=Mirror(
            repo="1aurent/vit_small_patch16_224.lunit_dino",
            statistics="0.5 throughout or ImageNet's: sources disagree",
            sha256="a19eb37d6cf038a7e8a34c7e9ec50698d02759b2f49dd799492f6ce7e4cb5937",
        ),
    ),
    "vit_small_patch8.lunit_dino": Released(
        file="dino_vit_small_patch8_ep200.torch",
        key="DINO_p8",
        method="DINO",
        architecture="vit_small_patch8_224",
        embed_dim=384,
        pooling="cls",
        sha256=None,
        mirror=Mirror(
            repo="1aurent/vit_small_patch8_224.lunit_dino",
            statistics=f"{_IMAGENET} (as others report)",
            sha256="0b7e0236ce430064b31485bbb6f85e661dc5eca0cde709e8f04d59f1c2b23e0b",
        ),
    ),
}


def released_statistics_note(
    name_or_repo: str, mean: Sequence[float], std: Sequence[float], *, sha256: str | None = None
) -> str | None:
    """Says in a line that released weights, or a copy, are used with other statistics.

    A copy is used with what its own config says, as any folder or repository is, and a file with
    what is stated for it; whoever loads one shows this line.

    Args:
        name_or_repo: a released file's name, a folder's name, a timm tag or a repository, such as
            `1aurent/resnet50.lunit_bt`.
        mean: what is used.
        std: what is used.
        sha256: of the file with the weights, which tells a file of any name.

    Returns:
        None where these are not released weights, or the statistics are those of the release.
    """
    released = released_names(name_or_repo, sha256)
    used, known = (*mean, *std), (*MEAN, *STD)
    is_same = len(used) == len(known) and all(
        abs(own - other) < 1e-3 for own, other in zip(used, known, strict=True)
    )
    if not released or is_same:
        return None
    return (
        f"{name_or_repo}: normalised with mean {_listed(mean)} and std {_listed(std)}; the release "
        f"notes of these weights give {_listed(MEAN)} and {_listed(STD)}. For those, load "
        f"{' or '.join(released)} instead."
    )


def released_names(name_or_repo: str, sha256: str | None = None) -> list[str]:
    """Which of the five a file, folder or repository may be; none for anything else.

    Args:
        name_or_repo: as in `released_statistics_note`; of the two ViTs a name with the patch size
            tells one.
        sha256: of the file with the weights.
    """
    text = name_or_repo.lower()
    tag = re.search(r"lunit_(bt|mocov2|swav|dino)(?![a-z0-9])", text)
    patch = re.search(r"patch_?(8|16)(?![0-9])", text)
    by_bytes = [
        name
        for name, row in RELEASED.items()
        if name_or_repo == row.file
        or (sha256 is not None and sha256 in (row.sha256, row.mirror.sha256))
    ]
    return by_bytes or [
        name
        for name in RELEASED
        if tag is not None
        and name.endswith(tag[0])
        and (patch is None or "patch" not in name or f"patch{patch[1]}." in name)
    ]


def _listed(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"
