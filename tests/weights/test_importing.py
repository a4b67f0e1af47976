"""Importing files that the user already has: the same checks, and nothing copied that fails."""

import errno
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eosin.errors import InputError, UsageError
from eosin.weights import RELEASED, load_released
from eosin.weights.importing import Config, import_file
from tests.weights import made_up_release as made_up
from tests.weights.made_up_release import RESNET, VIT

VIT8 = "vit_small_patch8.lunit_dino"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder, with small rows: a published ResNet and a ViT of unknown checksum."""
    monkeypatch.setenv("EOSIN_WEIGHTS", str(tmp_path / "weights"))
    made_up.make_small(VIT, monkeypatch)
    made_up.make_small(RESNET, monkeypatch)
    return tmp_path / "weights"


@pytest.fixture
def resnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = made_up.write_small(RESNET, tmp_path / "stick" / "download (1).bin")
    made_up.publish(RESNET, path, monkeypatch)
    return path


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return made_up.write_small(VIT, tmp_path / "stick" / RELEASED[VIT].file)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def take(path: Path, **options: object) -> object:
    return import_file(Config(**{"file": path, "accept_licence": True, **options}))


def test_a_published_file_is_known_by_its_checksum(resnet: Path, folder: Path) -> None:
    obtained = import_file(Config(file=resnet, accept_licence=True))
    assert obtained.name == RESNET and obtained.origin == "imported"
    assert obtained.checksum == "published" and obtained.note == ""
    assert obtained.path == folder / RELEASED[RESNET].file
    assert obtained.path.read_bytes() == resnet.read_bytes()
    assert load_released(RESNET).card.provenance["file_sha256"] == sha256(resnet)
    assert import_file(Config(file=resnet)).origin == "present"
    assert import_file(Config(file=obtained.path)).origin == "present"


def test_a_file_of_unknown_checksum_is_known_by_its_name_and_recorded(
    vit: Path, folder: Path, tmp_path: Path
) -> None:
    obtained = import_file(Config(file=vit, accept_licence=True))
    assert obtained.name == VIT and obtained.checksum == "unknown" and sha256(vit) in obtained.note
    record = json.loads((folder / "checksums.json").read_text())[vit.name]
    assert record["sha256"] == sha256(vit) and record["origin"] == "imported"
    # Now it is known by its bytes, under any name.
    renamed = Path(shutil.copy(vit, tmp_path / "renamed.bin"))
    assert import_file(Config(file=renamed)).name == VIT
    other = made_up.write_small(VIT, tmp_path / "other" / vit.name, seed=1)
    with pytest.raises(InputError, match="delete the entry"):
        take(other)
    assert sha256(obtained.path) == sha256(vit)


def test_a_file_beside_another_of_unknown_checksum_is_not_taken(vit: Path, tmp_path: Path) -> None:
    made_up.write_small(VIT, RELEASED[VIT].path, seed=1)
    with pytest.raises(InputError, match="Delete the one that you do not trust"):
        take(vit)


def test_a_damaged_file_that_is_here_is_replaced(resnet: Path, folder: Path) -> None:
    folder.mkdir()
    RELEASED[RESNET].path.write_bytes(b"cut short")
    assert import_file(Config(file=resnet, accept_licence=True)).origin == "imported"
    assert RELEASED[RESNET].path.read_bytes() == resnet.read_bytes()


def test_the_name_may_be_said(vit: Path, resnet: Path, tmp_path: Path) -> None:
    renamed = vit.rename(tmp_path / "stick" / "weights.bin")
    with pytest.raises(UsageError, match=rf"{sha256(renamed)}.*Say which it is: --name resnet50"):
        take(renamed)
    assert import_file(Config(file=renamed, accept_licence=True, name=VIT)).name == VIT
    with pytest.raises(UsageError, match=rf"is {RESNET} by its sha256, not {VIT}"):
        take(resnet, name=VIT)
    with pytest.raises(UsageError, match="--name resnet50 is none of"):
        Config(file=renamed, name="resnet50")


def test_what_is_not_the_file_is_not_copied(
    vit: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = made_up.write_small(RESNET, tmp_path / "stick" / RELEASED[RESNET].file)
    with pytest.raises(InputError, match="is not the released") as caught:
        take(wrong)
    assert sha256(wrong) in str(caught.value) and RELEASED[RESNET].sha256 in str(caught.value)
    assert wrong.exists()
    with pytest.raises(InputError, match=r"\d+ missing \(.*\d+ unexpected \("):
        take(Path(shutil.copy(wrong, tmp_path / "stick" / RELEASED[VIT8].file)))
    whole = vit.read_bytes()
    vit.write_bytes(whole[:-1000])
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        take(vit)
    torch.save({"state_dict": {}}, vit)
    with pytest.raises(InputError, match="not a file of plain tensors"):
        take(vit)
    for path in (tmp_path, tmp_path / "absent.torch"):
        with pytest.raises(InputError, match="is not a file"):
            take(path)
    assert not folder.exists()
    vit.write_bytes(whole)
    with pytest.raises(InputError, match=rf"type: eosin weights import {vit} --accept-licence"):
        import_file(Config(file=vit))
    assert not folder.exists()


def test_a_copy_from_the_hub_is_told_from_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"of the hub")
    mirror = replace(RELEASED[VIT].mirror, sha256=sha256(path))
    monkeypatch.setitem(RELEASED, VIT, replace(RELEASED[VIT], mirror=mirror))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"copy of .* from 1aurent/vit_small_patch16_224"):
        take(path)


def test_a_full_disk_leaves_nothing(
    vit: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fails)
    with pytest.raises(InputError, match=r"is full; .* bytes are to be copied"):
        take(vit)
    assert not [path for path in folder.iterdir() if "dino" in path.name]
