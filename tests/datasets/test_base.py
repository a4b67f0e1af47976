from pathlib import Path

import pytest

from eosin import plugins
from eosin.datasets import folder
from eosin.datasets._base import Info, Options, find_dataset
from eosin.errors import InputError, UsageError


@pytest.mark.parametrize("name", plugins.names("datasets"))
def test_every_dataset_keeps_the_contract(name: str, tmp_path: Path) -> None:
    module = plugins.load("datasets", name)
    assert isinstance(module.INFO, Info)
    assert module.INFO.title and module.INFO.licence and module.INFO.source
    assert module.INFO.expected_tree.strip()
    assert module.recognises(tmp_path) is False
    with pytest.raises(InputError, match="Expected:"):
        module.splits(tmp_path, Options())


def test_a_folder_of_images_is_the_answer_where_nothing_else_is(tmp_path: Path) -> None:
    assert find_dataset(tmp_path) is folder
    assert find_dataset(tmp_path, "folder") is folder


def test_what_is_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_dataset(tmp_path / "absent")
    (tmp_path / "file.h5").write_bytes(b"")
    with pytest.raises(InputError, match="is a file, not a folder"):
        find_dataset(tmp_path / "file.h5")


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lc25000, mhist, monuseg, pannuke, patch_camelyon"):
        find_dataset(tmp_path, "imagenet")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="--test-share"):
        Options(test_share=share)
