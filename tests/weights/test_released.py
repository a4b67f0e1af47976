"""Released weights: their layouts, their statistics, and files that are not what they should be."""

import hashlib
import json
import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eosin.encoders import Encoder
from eosin.encoders._base import IMAGENET_MEAN, IMAGENET_STD
from eosin.encoders.vit import DINOVisionTransformer
from eosin.errors import InputError
from eosin.weights import RELEASED, list_released, load_released, released_statistics_note
from eosin.weights.licences import LUNIT, require_acceptance
from eosin.weights.released import get_released, verify_released
from eosin.weights.strict import flat_tensors, load_strictly
from tests.weights import made_up_release as made_up
from tests.weights.made_up_release import RESNET, VIT

NOTES = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EOSIN_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def difference(encoder: Encoder, reference: Callable[[Tensor], Tensor]) -> float:
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = reference(images)
        assert expected.std() > 0.05
        return float((encoder.embed(images) - expected).abs().max())


def test_resnets_of_the_released_layout_give_the_features_of_the_snippet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trunk = made_up.trunk()
    made_up.write_release(RESNET, trunk, monkeypatch)
    for name in [name for name, row in RELEASED.items() if row.architecture == "resnet50"]:
        # The three differ by file name alone.
        row = replace(RELEASED[name], file=RELEASED[RESNET].file, sha256=RELEASED[RESNET].sha256)
        monkeypatch.setitem(RELEASED, name, row)  # type: ignore[arg-type]
        encoder = load_released(name)
        assert encoder.name == name and not encoder.training
        assert encoder.embed_dim == RELEASED[name].embed_dim == 2048 and encoder.pooling == "mean"
        assert difference(encoder, lambda images: trunk(images).mean((2, 3))) <= 1e-6
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        last = encoder.feature_maps(images)[-1]
        assert last.shape == (1, 2048, 2, 3) and torch.allclose(last, trunk(images), atol=1e-6)


@pytest.mark.parametrize("patch_size", [16, 8])
def test_vits_of_the_released_layout_give_the_features_of_the_snippet(
    patch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, model = f"vit_small_patch{patch_size}.lunit_dino", made_up.vision_transformer(patch_size)
    made_up.write_release(name, model, monkeypatch)
    encoder = load_released(name)
    assert encoder.embed_dim == RELEASED[name].embed_dim == 384 and encoder.pooling == "cls"
    assert difference(encoder, model) <= 1e-6
    assert isinstance(encoder.model, DINOVisionTransformer)
    with torch.inference_mode():
        assert encoder.embed(torch.randn(1, 3, 96, 128)).shape == (1, 384)
    other = VIT if patch_size == 8 else "vit_small_patch8.lunit_dino"
    with pytest.raises(InputError, match=r"patch_embed\.proj\.weight \(384"):
        verify_released(RELEASED[name].path, other)


def test_statistics_are_those_of_the_release_notes_and_matter(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    path = made_up.write_release(VIT, made_up.vision_transformer(16), monkeypatch)
    encoder = load_released(VIT)
    assert (encoder.mean, encoder.std) == NOTES
    assert all((row.mean, row.std) == NOTES for row in RELEASED.values())
    assert encoder.card.provenance == {
        "file": path.name,
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "url": f"https://github.com/lunit-io/benchmark-ssl-pathology/releases/download/"
        f"pretrained-weights/{path.name}",
        "licence": "Lunit Public License: non-commercial use, attribution",
        "licence_url": "https://github.com/lunit-io/benchmark-ssl-pathology/blob/main/LICENSE",
        "citation": RELEASED[VIT].citation,
        "normalisation": "release notes",
    }
    # Pink and violet, as stained tissue is.
    colours = torch.tensor([215, 160, 200]).view(1, 3, 1, 1)
    noise = 30 * torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    images = (colours + noise).clamp(0, 255).to(torch.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NOTES)
    with torch.inference_mode():
        ours = encoder.embed(encoder.normalise(images))
        assert torch.equal(ours, encoder.embed((images / 255 - mean) / std))
        for mean, std in ((IMAGENET_MEAN, IMAGENET_STD), ((0.5,) * 3, (0.5,) * 3)):
            other = Encoder(encoder.model, replace(encoder.card, mean=mean, std=std)).eval()
            changed = other.embed(other.normalise(images))
            assert (changed - ours).norm() > 0.05 * ours.norm()
            assert other.transform_id() != encoder.transform_id()


def test_files_without_counters_of_batch_norm_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.make_small(RESNET, monkeypatch, sha256=None)
    path = made_up.write_small(RESNET, RELEASED[RESNET].path)
    tensors = torch.load(path)
    old = {key: value for key, value in tensors.items() if "num_batches" not in key}
    assert len(old) < len(tensors)
    torch.save(old, path)
    assert load_released(RESNET).embed_dim > 0


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_an_absent_file_says_how_to_get_it(name: str, folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_released(name)
    message, row = str(caught.value), RELEASED[name]
    assert f"eosin weights get {name}" in message and f"{folder}/{row.file}" in message
    assert row.url in message and "non-commercial" in message and "weights import" in message
    assert [row["state"] for row in list_released()] == ["absent"] * 5 and not folder.exists()


def test_an_empty_setting_is_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", None):
        monkeypatch.setenv("EOSIN_WEIGHTS", value or "")
        if value is None:
            monkeypatch.delenv("EOSIN_WEIGHTS")
        assert RELEASED[VIT].path.parts[-4:-1] == (".cache", "eosin", "weights")


def test_a_wrong_checksum_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "swav_rn50_ep200.torch").write_bytes(b"not the file")
    for work in (load_released, get_released):
        with pytest.raises(InputError, match="sha256") as caught:
            work("resnet50.lunit_swav")
        message = str(caught.value)
        assert hashlib.sha256(b"not the file").hexdigest() in message
        assert str(RELEASED["resnet50.lunit_swav"].sha256) in message
        assert "delete it and type: eosin weights get resnet50.lunit_swav" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"args": Namespace(lr=1)}, "not a file of plain tensors"),
        ({"epoch": 3, "state_dict": {"w": torch.zeros(2)}}, "epoch, state_dict are none"),
        ([torch.zeros(2)], "holds no table"),
        ({}, "holds no table"),
        ({"head.weight": torch.zeros(2)}, r"\d+ missing \(.*1 unexpected \(head\.weight\)"),
        (b"<html>log in to the network first</html>", r"dino_vit_small_patch16_ep200\.torch"),
        (b"", r"dino_vit_small_patch16_ep200\.torch"),
    ],
)
def test_other_content_is_refused(
    content: object, message: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    made_up.make_small(VIT, monkeypatch)
    folder.mkdir()
    if isinstance(content, bytes):
        RELEASED[VIT].path.write_bytes(content)
    else:
        torch.save(content, RELEASED[VIT].path)
    for work in (load_released, get_released):
        with pytest.raises(InputError, match=message):
            work(VIT)
    assert [path.name for path in folder.iterdir()] == [RELEASED[VIT].file]


class Touching:
    """Would leave a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_up.make_small(VIT, monkeypatch)
    ran = tmp_path / "ran"
    path = made_up.write_small(VIT, RELEASED[VIT].path, changes={"extra": Touching(ran)})
    for work in (load_released, get_released, lambda name: verify_released(path, name)):
        with pytest.raises(InputError, match="not a file of plain tensors: extra is none"):
            work(VIT)
    assert not ran.exists()
    torch.load(path, weights_only=False)
    assert ran.exists()


def test_weights_that_do_not_fit_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.make_small(VIT, monkeypatch)
    path = made_up.write_small(
        VIT, RELEASED[VIT].path, changes={"cls_token": torch.zeros(1, 1, 5), "x": torch.zeros(1)}
    )
    tensors = torch.load(path)
    del tensors["norm.weight"]
    torch.save(tensors, path)
    with pytest.raises(InputError) as caught:
        load_released(VIT)
    assert "1 missing (norm.weight)" in str(caught.value)
    assert "1 unexpected (x)" in str(caught.value)
    assert "cls_token (1, 1, 5) for (1, 1, 64)" in str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.99, 0.9999])
def test_a_truncated_file_is_refused(
    share: float, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    for name in (VIT, RESNET):
        made_up.make_small(name, monkeypatch)
        path = made_up.write_small(name, RELEASED[name].path)
        if name == RESNET:
            made_up.publish(name, path, monkeypatch)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match=re.escape(str(path))):
            load_released(name)


def test_the_first_file_of_a_name_says_what_later_ones_must_be(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    made_up.make_small(VIT, monkeypatch)
    path = made_up.write_small(VIT, RELEASED[VIT].path)
    first = hashlib.sha256(path.read_bytes()).hexdigest()
    obtained = get_released(VIT)
    assert (obtained.sha256, obtained.checksum, obtained.origin) == (first, "unknown", "present")
    assert first in obtained.note and str(folder / "checksums.json") in obtained.note
    assert get_released(VIT).checksum == "recorded" and get_released(VIT).note == ""
    made_up.write_small(VIT, path, seed=1)
    second = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(InputError, match="delete the entry") as caught:
        load_released(VIT)
    assert first in str(caught.value) and second in str(caught.value)
    records = json.loads((folder / "checksums.json").read_text())
    del records[path.name]
    (folder / "checksums.json").write_text(json.dumps(records))
    assert load_released(VIT).card.provenance["file_sha256"] == second
    (folder / "checksums.json").write_text("{")
    with pytest.raises(InputError, match=r"checksums\.json is not JSON"):
        load_released(VIT)


def test_nothing_is_downloaded_before_the_licence_is_accepted(folder: Path) -> None:
    with pytest.raises(InputError, match=f"eosin weights get {VIT} --accept-licence"):
        load_released(VIT, download=True)
    assert not folder.exists()


def test_a_file_that_is_here_needs_no_licence_and_no_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up.make_small(VIT, monkeypatch, release_url="https://127.0.0.1:9")
    made_up.write_small(VIT, RELEASED[VIT].path)
    assert load_released(VIT, download=True).name == VIT
    require_acceptance(LUNIT, accept=True, command="x")
    RELEASED[VIT].path.unlink()
    with pytest.raises(InputError, match=r"none of the hosts that are allowed: github\.com"):
        load_released(VIT, download=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1aurent/resnet50.lunit_bt", ["resnet50.lunit_bt"]),
        ("hf-hub:1aurent/resnet50.lunit_MoCoV2@main", ["resnet50.lunit_mocov2"]),
        ("1aurent/resnet50.lunit_swav", ["resnet50.lunit_swav"]),
        ("1aurent/vit_small_patch16_224.lunit_dino", [VIT]),
        ("vit_small_patch8_224.lunit_dino", ["vit_small_patch8.lunit_dino"]),
        ("lunit_dino", [VIT, "vit_small_patch8.lunit_dino"]),
        ("resnet50.a1_in1k", []),
        ("runs/my_lunit_like", []),
        ("lunit_btx", []),
        ("dino_vit_small_patch8_ep200.torch", ["vit_small_patch8.lunit_dino"]),
    ],
)
def test_copies_with_other_statistics_are_told(name: str, expected: list[str]) -> None:
    note = released_statistics_note(name, IMAGENET_MEAN, IMAGENET_STD)
    if not expected:
        assert note is None
    else:
        assert note is not None and "\n" not in note and note.startswith(f"{name}: ")
        assert "(0.485, 0.456, 0.406)" in note and "(0.70323, 0.536065, 0.660966)" in note
        assert note.endswith(f"load {' or '.join(expected)} instead.")
    assert released_statistics_note(name, *NOTES) is None
    rounded = [[round(value, 4) for value in values] for values in NOTES]
    assert released_statistics_note(name, *rounded) is None


def test_files_of_any_name_are_told_by_their_bytes() -> None:
    for name, row in RELEASED.items():
        for sha256 in filter(None, (row.sha256, row.mirror.sha256)):
            note = released_statistics_note("x.bin", IMAGENET_MEAN, IMAGENET_STD, sha256=sha256)
            assert note is not None and note.endswith(f"load {name} instead.")
    assert released_statistics_note("x.bin", IMAGENET_MEAN, IMAGENET_STD, sha256="0" * 64) is None
    assert released_statistics_note("x.bin", IMAGENET_MEAN, IMAGENET_STD) is None


def test_statistics_of_one_channel_are_others() -> None:
    assert released_statistics_note("resnet50.lunit_bt", [0.5], [0.5]) is not None


def test_plain_tensors_and_strict_loading() -> None:
    model = torch.nn.Linear(2, 3)
    load_strictly(model, flat_tensors(model.state_dict(), Path("f")), Path("f"))
    many = {f"other{number}": torch.zeros(1) for number in range(5)}
    with pytest.raises(InputError, match=r"f does not fit Linear: 2 missing .*5 unexpected .*, …"):
        load_strictly(model, many, Path("f"))
