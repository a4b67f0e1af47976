"""`eosin weights export` and `push` as they are typed."""

import json
from pathlib import Path

import pytest

from eosin.commands._weights_export import EXPORT, PUSH
from eosin.errors import UsageError


def test_an_encoder_is_exported_and_its_upload_shown(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = EXPORT.run(["random/test_resnet", "-o", str(out), "--name", "mine"])
    assert done.exit_code == 0 and (out / "README.md").is_file()
    assert f"mine is in {out}" in done.text
    assert f"Next: eosin weights push {out} --repo OWNER/NAME" in done.text
    assert json.loads(json.dumps(done.facts))["same_in_timm"] is True

    shown = PUSH.run([str(out), "--repo", "me/x", "--private"])
    assert shown.exit_code == 2 and "Nothing was uploaded; --yes does it." in shown.text
    facts = json.loads(json.dumps(shown.facts))
    assert facts["uploaded"] is False and facts["private"] is True
    assert set(facts["files"]) == {"README.md", "config.json", "model.safetensors"}


def test_a_licence_with_conditions_names_both_flags(tmp_path: Path) -> None:
    out = tmp_path / "out"
    EXPORT.run(["random/test_resnet", "-o", str(out)])
    config = json.loads((out / "config.json").read_text())
    config["eosin"] = {"name": "x", "pooling": "mean", "licence": "Lunit Public License"}
    (out / "config.json").write_text(json.dumps(config))
    shown = PUSH.run([str(out), "--repo", "me/x"])
    assert "--licence-allows-sharing --yes does it" in shown.text and shown.facts["licences"]
    with pytest.raises(UsageError, match="--licence-allows-sharing"):
        PUSH.run([str(out), "--repo", "me/x", "--yes"])


@pytest.mark.parametrize("command", [EXPORT, PUSH])
def test_help_has_an_example(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.run(["--help"])
    assert caught.value.code == 0
    assert f"Example: {command.example}" in capsys.readouterr().out
