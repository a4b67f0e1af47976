"""Pathology encoders of others: a row of facts for each, so that its name is enough to load it.

Facts were taken from public code that loads these models: mahmoodlab/TRIDENT
`trident/patch_encoder_models/load.py` and README, clemsgrs/slide2vec `slide2vec/encoders/models`,
kaiko-ai/eva `backbones/pathology`, and, for licences and who is gated, rendeirolab/lazyslide-models
`src/lazyslide_models/vision`. `source` names where they are thinner or differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# (mean, std) of pixels in [0, 1].
_Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_BIOPTIMUS = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
_HIBOU = (0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)

CC_BY_NC_ND = "CC-BY-NC-ND-4.0"
_OWKIN = "Owkin non-commercial licence"
_KAIKO = "kaiko non-commercial licence"

# ViTs with a SwiGLU: timm has one of each kind, and arguments make it any size.
_SWIGLU = "vit_giant_patch14_dinov2"
_SWIGLU_WITH_REGISTERS = "vit_giant_patch14_reg4_dinov2"
_HUGE = {"embed_dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 5.3375}


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """One pathology encoder of others.

    Attributes:
        title: its name as published.
        repo: its repository on the Hugging Face Hub.
        licence: under which it is shared.
        is_gated: whether its terms must be accepted on the Hub before it can be downloaded.
        architecture: timm's name of an architecture.
        embed_dim: length of an embedding under `pooling`.
        pooling: how its authors pool: `cls`, `mean` or `cls+mean`.
        citation: the paper or the model's page.
        statistics: mean and std that pixels in [0, 1] are normalised with.
        model_args: of `timm.create_model`, besides what the weights' shapes tell.
        input_px: side of the images that its authors embed.
        interpolation: how its authors resize images.
        file: in the repository; `model.safetensors` or `pytorch_model.bin` where it is None.
        is_dataset: whether the repository is one of a data set.
        resizes_as_dino: whether positions are resized by DINO's rule at other sizes.
        has_convolutional_stem: whether patches are embedded by CTransPath's convolutions.
        source: what is to be known about these facts besides what the module says.
    """

    title: str
    repo: str
    licence: str
    is_gated: bool
    architecture: str
    embed_dim: int
    pooling: str
    citation: str
    statistics: _Statistics
    model_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    input_px: int = 224
    interpolation: str = "bicubic"
    file: str | None = None
    is_dataset: bool = False
    resizes_as_dino: bool = False
    has_convolutional_stem: bool = False
    source: str = ""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Subtracted from pixels in [0, 1]."""
        return self.statistics[0]

    @property
    def std(self) -> tuple[float, float, float]:
        """Divides what `mean` was subtracted from."""
        return self.statistics[1]


def _kaiko(title: str, repo: str, architecture: str, embed_dim: int) -> Foundation:
    return Foundation(
        title=f"kaiko {title}",
        repo=f"1aurent/{repo}.kaiko_ai_towards_large_pathology_fms",
        licence=_KAIKO,
        is_gated=False,
        architecture=architecture,
        embed_dim=embed_dim,
        pooling="cls",
        interpolation="bilinear",
        citation="kaiko.ai et al. 2024, arXiv 2404.15217",
        source="a copy in timm's format; the original is kaiko-ai/towards_large_pathology_fms",
        statistics=_HALVES,
    )


FOUNDATION: Mapping[str, Foundation] = {
    "uni": Foundation(
        title="UNI",
        repo="MahmoodLab/UNI",
        licence=CC_BY_NC_ND,
        is_gated=True,
        architecture="vit_large_patch16_224",
        model_args={"init_values": 1e-5},
        embed_dim=1024,
        pooling="cls",
        interpolation="bilinear",
        citation="Chen et al. 2024, Nature Medicine 30, doi 10.1038/s41591-024-02857-3",
        statistics=_IMAGENET,
    ),
    "uni2_h": Foundation(
        title="UNI2-h",
        repo="MahmoodLab/UNI2-h",
        licence=CC_BY_NC_ND,
        is_gated=True,
        architecture=_SWIGLU_WITH_REGISTERS,
        model_args={"depth": 24, "reg_tokens": 8},
        embed_dim=1536,
        pooling="cls",
        interpolation="bilinear",
        citation="Chen et al. 2024, Nature Medicine 30, doi 10.1038/s41591-024-02857-3",
        statistics=_IMAGENET,
    ),
    "virchow": Foundation(
        title="Virchow",
        repo="paige-ai/Virchow",
        licence="Apache-2.0",
        is_gated=True,
        architecture=_SWIGLU,
        model_args=_HUGE,
        embed_dim=2560,
        pooling="cls+mean",
        citation="Vorontsov et al. 2024, Nature Medicine 30, doi 10.1038/s41591-024-03141-0",
        statistics=_IMAGENET,
    ),
    "virchow2": Foundation(
        title="Virchow2",
        repo="paige-ai/Virchow2",
        licence=CC_BY_NC_ND,
        is_gated=True,
        architecture=_SWIGLU_WITH_REGISTERS,
        model_args={**_HUGE, "no_embed_class": False},
        embed_dim=2560,
        pooling="cls+mean",
        citation="Zimmermann et al. 2024, arXiv 2408.00738",
        statistics=_IMAGENET,
    ),
    "phikon": Foundation(
        title="Phikon",
        repo="owkin/phikon",
        licence=_OWKIN,
        is_gated=False,
        architecture="vit_base_patch16_224",
        embed_dim=768,
        pooling="cls",
        interpolation="bilinear",
        citation="Filiot et al. 2023, medRxiv 2023.07.21.23292757",
        source="normalises by 1e-6 in timm, where Hugging Face's ViT has 1e-12",
        statistics=_IMAGENET,
    ),
    "phikon_v2": Foundation(
        title="Phikon-v2",
        repo="owkin/phikon-v2",
        licence=_OWKIN,
        is_gated=False,
        architecture="vit_large_patch16_224",
        model_args={"init_values": 1e-5},
        embed_dim=1024,
        pooling="cls",
        interpolation="bilinear",
        resizes_as_dino=True,
        citation="Filiot et al. 2024, arXiv 2409.09173",
        statistics=_IMAGENET,
    ),
    "h_optimus_0": Foundation(
        title="H-optimus-0",
        repo="bioptimus/H-optimus-0",
        licence="Apache-2.0",
        is_gated=True,
        architecture=_SWIGLU_WITH_REGISTERS,
        embed_dim=1536,
        pooling="cls",
        citation="Saillard et al. 2024, github.com/bioptimus/releases",
        source="sources differ on whether it is gated",
        statistics=_BIOPTIMUS,
    ),
    "h_optimus_1": Foundation(
        title="H-optimus-1",
        repo="bioptimus/H-optimus-1",
        licence=CC_BY_NC_ND,
        is_gated=True,
        architecture=_SWIGLU_WITH_REGISTERS,
        embed_dim=1536,
        pooling="cls",
        citation="Bioptimus 2025, huggingface.co/bioptimus/H-optimus-1",
        statistics=_BIOPTIMUS,
    ),
    "h0_mini": Foundation(
        title="H0-mini",
        repo="bioptimus/H0-mini",
        licence=CC_BY_NC_ND,
        is_gated=True,
        architecture=_SWIGLU_WITH_REGISTERS,
        model_args={"embed_dim": 768, "depth": 12, "num_heads": 12},
        embed_dim=1536,
        pooling="cls+mean",
        citation="Filiot et al. 2025, arXiv 2501.16239",
        source="architecture from owkin/histoplus helpers/nn/vit.py; some pool by cls",
        statistics=_BIOPTIMUS,
    ),
    "prov_gigapath": Foundation(
        title="Prov-GigaPath, tiles",
        repo="prov-gigapath/prov-gigapath",
        licence="Apache-2.0 with conditions",
        is_gated=True,
        architecture=_SWIGLU,
        model_args={"patch_size": 16},
        embed_dim=1536,
        pooling="cls",
        file="pytorch_model.bin",
        citation="Xu et al. 2024, Nature 630, doi 10.1038/s41586-024-07441-w",
        source="its authors resize tiles to 256 px and take the centre of 224 px",
        statistics=_IMAGENET,
    ),
    "hibou_b": Foundation(
        title="Hibou-B",
        repo="histai/hibou-b",
        licence="Apache-2.0",
        is_gated=True,
        architecture=_SWIGLU_WITH_REGISTERS,
        model_args={"embed_dim": 768, "depth": 12, "num_heads": 12},
        embed_dim=768,
        pooling="cls",
        citation="Nechaev et al. 2024, arXiv 2406.05074",
        source="architecture from HistAI/hibou hibou/models/__init__.py; names of weights as in "
        "Hugging Face's Dinov2WithRegisters, not seen in the file",
        statistics=_HIBOU,
    ),
    "hibou_l": Foundation(
        title="Hibou-L",
        repo="histai/hibou-L",
        licence="Apache-2.0",
        is_gated=True,
        architecture=_SWIGLU_WITH_REGISTERS,
        model_args={"embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 5.34375},
        embed_dim=1024,
        pooling="cls",
        citation="Nechaev et al. 2024, arXiv 2406.05074",
        source="architecture from HistAI/hibou cellvit.py:847; names of weights as of hibou_b",
        statistics=_HIBOU,
    ),
    "kaiko_s16": _kaiko("ViT-S/16", "vit_small_patch16_224", "vit_small_patch16_224", 384),
    "kaiko_s8": _kaiko("ViT-S/8", "vit_small_patch8_224", "vit_small_patch8_224", 384),
    "kaiko_b16": _kaiko("ViT-B/16", "vit_base_patch16_224", "vit_base_patch16_224", 768),
    "kaiko_b8": _kaiko("ViT-B/8", "vit_base_patch8_224", "vit_base_patch8_224", 768),
    "kaiko_l14": _kaiko(
        "ViT-L/14", "vit_large_patch14_reg4_224", "vit_large_patch14_reg4_dinov2", 1024
    ),
    "midnight_12k": Foundation(
        title="Midnight-12k",
        repo="kaiko-ai/midnight",
        licence="MIT",
        is_gated=True,
        architecture=_SWIGLU,
        embed_dim=3072,
        pooling="cls+mean",
        interpolation="bilinear",
        resizes_as_dino=True,
        citation="Karasikov et al. 2025, arXiv 2504.05186",
        source="sources differ on whether it is gated",
        statistics=_HALVES,
    ),
    "gpfm": Foundation(
        title="GPFM",
        repo="majiabo/GPFM",
        licence="CC-BY-NC-ND-4.0 or MIT: sources differ",
        is_gated=False,
        architecture="vit_large_patch14_dinov2",
        embed_dim=1024,
        pooling="cls",
        file="GPFM.pth",
        citation="Ma et al. 2025, Nature Biomedical Engineering, doi 10.1038/s41551-025-01488-4",
        statistics=_IMAGENET,
    ),
    "ctranspath": Foundation(
        title="CTransPath, as shared with CHIEF",
        repo="MahmoodLab/hest-bench",
        licence="GPL-3.0 (TransPath), AGPL-3.0 (CHIEF)",
        is_gated=True,
        architecture="swin_tiny_patch4_window7_224",
        embed_dim=768,
        pooling="mean",
        interpolation="bilinear",
        file="fm_v1/ctranspath/CHIEF_CTransPath.pth",
        is_dataset=True,
        has_convolutional_stem=True,
        citation="Wang et al. 2022, Medical Image Analysis 81, doi 10.1016/j.media.2022.102559",
        source="Swin with a stem of its own: exports of it do not load in bare timm",
        statistics=_IMAGENET,
    ),
}
"""Pathology encoders of others, by the name under which they load."""
