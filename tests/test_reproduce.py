"""The study of the paper with what is at hand: what is missing is said, the rest is run."""

import json
from pathlib import Path

import pytest

from eosin import cli, reproduce
from eosin.errors import InputError, UsageError
from eosin.reproduce import Config
from eosin.results.files import read_predictions, read_results
from tests.stripes import write_encoder, write_labelled


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EOSIN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("EOSIN_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))


def config(folder: Path, **changes) -> Config:
    given = {
        "study": "paper",
        "out": folder / "out",
        "seeds": 2,
        "task": ("linear",),
        "encoders": ("resnet50.lunit_bt", str(write_encoder(folder / "encoder"))),
        "on": (Path("mhist"), write_labelled(folder / "stripes")),
    }
    return Config(**{**given, **changes})


def test_the_study_has_the_encoders_and_data_sets_of_the_paper() -> None:
    whole = Config(study="paper")
    names = ("bach", "crc", "patch_camelyon", "mhist", "consep")
    assert whole.on == tuple(Path(name) for name in names)
    assert sum("lunit" in name for name in whole.encoders) == 5
    assert whole.task == ("linear", "finetune", "nuclei_frozen", "nuclei")


def test_a_data_set_that_no_part_is_for_is_not_missed(tmp_path: Path) -> None:
    asked = config(tmp_path, on=(Path("mhist"), Path("consep")))
    assert [each for each in reproduce.find(asked).missing if "consep" in each] == []
    nuclei = config(tmp_path / "n", on=(Path("mhist"), Path("consep")), task=("nuclei",))
    said = [each for each in reproduce.find(nuclei).missing if each.startswith("data set")]
    assert len(said) == 1 and "consep" in said[0]


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    asked = config(tmp_path)
    hand = reproduce.find(asked)
    assert hand.encoders == asked.encoders[1:] and hand.datasets == asked.on[1:]
    encoder, data, *_ = hand.missing
    assert encoder.startswith("encoder resnet50.lunit_bt (Barlow Twins, TCGA): ")
    assert "eosin weights get" in encoder
    assert data.startswith("data set mhist (") and "eosin datasets get mhist" in data


def test_the_plan_counts_jobs_and_writes_nothing(tmp_path: Path) -> None:
    said, facts = reproduce.plan(config(tmp_path))
    assert said[0].startswith("Missing: encoder resnet50.lunit_bt")
    counted = {work["encoder"]: work["jobs"] for work in facts["plan"]}
    assert counted.keys() == {"resnet10t.ours", "random/resnet10t", "colour_histogram"}
    # The probe has no randomness, so two seeds are no more work than one.
    assert set(counted.values()) == {1}
    assert said[-1].startswith("In all ")
    assert not (tmp_path / "out").exists()


def test_with_nothing_at_hand_the_plan_says_so_and_a_run_is_refused(tmp_path: Path) -> None:
    bare = Config(study="paper", out=tmp_path / "out")
    said, facts = reproduce.plan(bare)
    assert said[-1].startswith("Nothing can be run") and facts["plan"] == []
    assert len([each for each in facts["missing"] if each.startswith("data set")]) == 5
    with pytest.raises(InputError, match="eosin reproduce paper --plan"):
        reproduce.run(bare)
    assert not (tmp_path / "out").exists()


def test_it_runs_what_is_there_and_prints_the_papers_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = config(tmp_path)
    said, facts = reproduce.run(asked)
    assert "Missing: encoder resnet50.lunit_bt" in capsys.readouterr().err
    assert said[0].startswith("Linear evaluation, accuracy in %")
    rows = [row for row in read_results(asked.out) if row.encoder.name == "resnet10t.ours"]
    assert {(row.protocol.id, row.data.shift, row.label_fraction) for row in rows} == {
        ("paper", "none", 1.0)
    }
    hits = [(each.label == each.predicted).mean() for each in map(read_predictions, rows)]
    cell = next(each for each in facts["tables"]["linear"] if each["encoder"] == "resnet10t.ours")
    assert cell["ours"]["value"] == pytest.approx(sum(hits) / len(hits))
    assert cell["ours"]["runs"] == len(rows) and cell["paper"] is None
    line = next(each for each in said if each.startswith("resnet10t.ours"))
    assert f"- | {100 * cell['ours']['value']:.1f} [" in line
    # No number is put into the paper's mouth.
    assert said[-1] == reproduce.NO_VALUES


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(UsageError, match="linear, finetune"):
        Config(study="paper", task=("guess",))


def test_the_command_prints_one_line_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "paper", "--plan", "--out", str(tmp_path / "out"), "--json"]
    assert cli.main(words) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["plan"] == [] and len(facts["missing"]) >= 13
    assert cli.main([word for word in words if word != "--plan"]) == 1
    assert "Traceback" not in capsys.readouterr().err
