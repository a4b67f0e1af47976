"""The model card: true, complete, and safe with any text in it."""

import re
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.weights.licences import LUNIT
from eosin.weights.markdown import code, fenced, table, text
from eosin.weights.model_card import write_card

RUN: dict[str, Any] = {
    "name": "bt-colon",
    "pooling": "mean",
    "embed_dim": 2048,
    "weights_sha256": "ab" * 32,
    "config_sha256": "cd" * 32,
    "method": "barlow_twins",
    "config": {"method": {"lambd": 0.005}, "data": ["tiles"], "init": "", "batch_size": 256},
    "data": [{"name": "tiles", "tiles": 512, "sha256": "ef" * 32}],
    "tiles_seen": 1_024_000,
    "updates": 4000,
    "processes": 2,
    "created": "2026-01-02T03:04:05+00:00",
    "versions": {"python": "3.11", "torch": "2.14"},
    "hardware": "EPYC, 16 cores",
}


def config(**eosin: Any) -> dict[str, Any]:
    return {
        "architecture": "resnet50",
        "num_features": 2048,
        "model_args": {"zero_init_last": False},
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "interpolation": "bicubic",
            "mean": [0.7, 0.5, 0.6],
            "std": [0.2, 0.3, 0.2],
        },
        "eosin": {**RUN, **eosin},
    }


def test_the_card_of_a_run_says_what_it_was() -> None:
    card = write_card(config(), {"model.safetensors": "12" * 32})
    for fact in (
        "# bt-colon",
        "pre-trained with Barlow Twins by Eosin on 1,024,000 tiles",
        "`resnet50`",
        "224 x 224 px",
        "`0.7, 0.5, 0.6`",
        "2048 values",
        'timm.create_model("local-dir:FOLDER", pretrained=True)',
        'eosin.load_encoder("FOLDER")',
        "| tiles |",
        "updates: 4,000",
        "EPYC, 16 cores",
        "torch 2.14",
        '"lambd": 0.005',
        "https://arxiv.org/abs/2103.03230",
        "12" * 32,
        "ab" * 32,
        "cd" * 32,
    ):
        assert fact in card, fact
    assert "mpp" not in card.split("## Training")[0]  # not known, so not said
    assert "model.onnx" not in card and "## Evaluation" not in card


def test_the_metadata_is_what_the_hub_reads() -> None:
    data = ModelCard(write_card(config(), {})).data
    assert data.library_name == "timm" and data.license is None
    assert {"timm", "pathology", "barlow-twins", "resnet50"} <= set(data.tags or ())


def test_a_run_from_scratch_leaves_the_licence_to_its_owner() -> None:
    card = write_card(config(), {})
    assert "is for those who trained them to decide" in " ".join(card.split())


def test_weights_of_unknown_origin_are_not_called_ones_own() -> None:
    own = {key: RUN[key] for key in ("name", "pooling", "embed_dim", "weights_sha256")}
    card = write_card({**config(), "eosin": {**own, "source": "timm folder x"}}, {})
    assert "is not known to Eosin" in card and "to decide" not in card


def test_the_licence_of_the_first_weights_is_in_text_and_metadata() -> None:
    released = {
        "file": "bt_rn50_ep200.torch",
        "licence": LUNIT.short,
        "citation": "Kang et al. 2023",
    }
    init = {"name": "resnet50.lunit_bt", "provenance": released}
    card = write_card(config(init=init), {})
    data = ModelCard(card).data
    assert (data.license, data.license_name, data.license_link) == ("other", LUNIT.key, LUNIT.url)
    assert "starting from resnet50.lunit\\_bt" in card
    assert "bt\\_rn50\\_ep200.torch" in card and "Kang et al. 2023" in card
    assert "non-commercial" in card and "names Lunit Inc." in card
    assert "to decide" not in card


def test_a_licence_that_the_hub_knows_has_its_identifier() -> None:
    data = ModelCard(write_card(config(licence="Apache 2.0"), {})).data
    assert data.license == "apache-2.0" and data.license_name is None


def test_the_tiles_are_described_where_the_run_did() -> None:
    data = [
        {"name": "a|b", "tiles": 12_345, "mpp": [0.5, 0.25], "tile_px": 444, "sha256": "9" * 64},
        {"name": "c", "tiles": 5, "mpp": [0.5], "sha256": "8" * 64},
    ]
    card = write_card(config(data=data), {})
    assert "| resolution of training tiles | 0.25 mpp, 0.5 mpp |" in card
    assert "| a\\|b | 12,345 | 0.5, 0.25 | `9999999999999999` |" in card


def test_scores_are_shown_with_their_caution() -> None:
    card = write_card(config(evaluation={"update": 10, "images": "crc", "knn": 0.875}), {})
    assert "after update 10 on crc" in card and "| kNN accuracy | 87.5 % |" in card
    assert "no test result" in card


def test_a_note_on_bare_timm_replaces_the_claim() -> None:
    assert "The output is the embedding." in write_card(config(), {})
    card = write_card(config(), {"model.onnx": "0"}, timm_note="It differs.")
    assert "The output is the embedding." not in card and "It differs." in card
    assert "`model.onnx` takes `images`, uint8" in card


ODD = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(ODD, ODD, ODD)
def test_no_text_breaks_out_of_its_place(name: str, data: str, licence: str) -> None:
    settings_ = {"init": "", "data": [data], "method": {"note": name}}
    odd = config(name=name, config=settings_, hardware=data, licence=licence)
    card = write_card(odd, {name: "0"})
    _, metadata, body = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    assert ModelCard(card).data.library_name == "timm" and metadata
    titles = [line for line in body.split("\n") if re.match(r"#{1,6} ", line)]
    plain = ["Loading", "Training", "Licence", "Citation", "Provenance"]
    assert [title.lstrip("# ") for title in titles][1:] == plain


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y&gt;"),
        ("a\n# b", "a \\# b"),
        ("[x](javascript:y)", "\\[x\\]\\(javascript:y\\)"),
        ("a | b", "a \\| b"),
        ("**x** `y` ~z~", "\\*\\*x\\*\\* \\`y\\` \\~z\\~"),
    ],
)
def test_text_has_no_meaning_as_markdown(given_: str, expected: str) -> None:
    assert text(given_) == expected


def test_code_holds_backticks_and_bars() -> None:
    assert code("a`b") == "`` a`b ``" and code("a|b") == "`a\\|b`" and code("") == ""
    assert fenced("json", "```").startswith("````json\n")
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
