"""What weights were made from, and which licences follow."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.weights.licences import LUNIT
from eosin.weights.origins import (
    ancestors,
    hub_id,
    inherited_licences,
    with_ancestor,
    without_paths,
)

RUN = {"method": "dino", "config": {"init": ""}}


@pytest.mark.parametrize(
    ("text", "expected", "shares_freely"),
    [
        ("Apache-2.0", "apache-2.0", True),
        ("apache 2.0", "apache-2.0", True),
        ("MIT", "mit", True),
        ("CC BY 4.0", "cc-by-4.0", True),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", False),
        ("CC-BY-NC-ND-4.0 (gated)", "cc-by-nc-nd-4.0", False),
        ("CC BY-NC-SA 4.0, research only", "cc-by-nc-sa-4.0", False),
        ("Mitsubishi terms", "other", False),
        ("apache-2.0.1", "other", False),
        ("Owkin non-commercial", "other", False),
    ],
)
def test_licences_are_known_by_their_hub_names(
    text: str, expected: str, shares_freely: bool
) -> None:
    (found,) = inherited_licences("x", {"licence": text, "repo": "them/x"})
    assert (found.hub_id, found.shares_freely, found.text) == (expected, shares_freely, text)
    assert found.link == "https://huggingface.co/them/x"
    assert (found.hub_name is not None) == (expected == "other")


def test_the_released_weights_have_their_licences_terms() -> None:
    (found,) = inherited_licences("resnet50.lunit_bt", {"licence": LUNIT.short})
    assert found.hub_id == "other" and found.hub_name == LUNIT.key and found.link == LUNIT.url
    assert found.terms == LUNIT.terms and not found.shares_freely


def test_a_run_that_recorded_a_released_name_alone_has_its_licence() -> None:
    run = {"method": "dino", "config": {"init": "vit_small_patch8.lunit_dino"}}
    assert [each.text for each in inherited_licences("mine", run)] == [LUNIT.short]
    assert not ancestors("mine", run)[0].is_own


def test_all_licences_on_the_way_count() -> None:
    first = {"licence": "cc-by-nc-4.0"}
    second = {**RUN, "licence": "apache-2.0", "init": {"name": "first", "provenance": first}}
    found = inherited_licences("second", {**RUN, "init": {"name": "2", "provenance": second}})
    assert [(each.encoder, each.text) for each in found] == [
        ("2", "apache-2.0"),
        ("first", "cc-by-nc-4.0"),
    ]
    assert hub_id(found) == "other" and hub_id(found[1:]) == "cc-by-nc-4.0"


@pytest.mark.parametrize(
    ("provenance", "is_own"),
    [
        (RUN, True),
        ({"initialisation": "random"}, True),
        ({"source": "timm folder x"}, False),
        ({}, False),
        ({"method": "dino", "config": {"init": "runs/gone"}}, False),
    ],
)
def test_weights_are_ones_own_only_where_that_is_known(
    provenance: dict[str, Any], is_own: bool
) -> None:
    assert ancestors("x", provenance)[-1].is_own == is_own


def test_the_same_weights_have_no_ancestor() -> None:
    told = {**RUN, "name": "a", "exported": {"created": "yesterday"}}
    again = {**RUN, "name": "b", "exported": {"created": "today"}, "evaluation": {"knn": 0.5}}
    assert with_ancestor(again, "a", told) == again
    assert with_ancestor(RUN, "random/x", {"initialisation": "random"}) == RUN
    assert with_ancestor(RUN, "x", {}) == RUN


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
keys = st.sampled_from(["licence", "init", "config", "method", "provenance", "name", "repo"])


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(keys, json_values | st.dictionaries(keys, json_values), max_size=6))
def test_no_provenance_is_too_odd_to_be_read(provenance: dict[str, Any]) -> None:
    for each in inherited_licences("x", provenance):
        assert each.hub_id and each.text
    assert with_ancestor({}, "x", {"licence": "mit"})["init"]["provenance"] == {"licence": "mit"}


@given(st.text(min_size=1, max_size=40).filter(str.strip))
def test_no_licence_is_lost(text: str) -> None:
    (found,) = inherited_licences("x", {"init": {"name": "y", "provenance": {"licence": text}}})
    assert found.encoder == "y" and (found.hub_id != "other" or found.hub_name)


def test_folders_are_cut_down_to_their_name(tmp_path: Path) -> None:
    for init, expected in [
        (str(tmp_path / "mine"), "mine"),
        ("../elsewhere/encoder", "encoder"),
        ("resnet50.lunit_bt", "resnet50.lunit_bt"),
        ("hf-hub:them/x", "hf-hub:them/x"),
        ("timm/resnet18", "timm/resnet18"),
    ]:
        assert without_paths({"config": {"init": init}})["config"]["init"] == expected
    assert without_paths({"config": None}) == {"config": None}
