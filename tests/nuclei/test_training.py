"""Training as a whole on drawn discs: it learns, resumes, freezes, and is the same on two ranks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eosin.encoders import Encoder, build_encoder
from eosin.engine import distributed
from eosin.engine.log import read_log
from eosin.engine.step import Stepper
from eosin.errors import UsageError
from eosin.nuclei import training as training_module
from eosin.nuclei.hovernet import HoVerNet
from eosin.nuclei.predicting import NucleiPredictor, compare_images, count_images, mean_scores
from eosin.nuclei.settings import Phase, Training
from eosin.nuclei.training import Setup, Trained, train_hovernet, updates_of
from tests.nuclei.discs import images
from tests.ranks import run_on_ranks

SHORT = Training(
    phases=(
        Phase(epochs=1, batch_size=4, is_frozen=True, min_updates=3),
        Phase(epochs=1, batch_size=4, is_frozen=False, min_updates=5),
    ),
    learning_rate=3e-3,
    input_px=48,
    width=1 / 16,
    window_px=96,
    step_px=96,
    measured=2,
    overlap_px=16,
)


def encoder() -> Encoder:
    return build_encoder("timm/test_efficientnet", input_px=48, seed=0).eval()


def setup(training: Training = SHORT, seed: int = 0, count: int = 3) -> Setup:
    return Setup(
        encoder=encoder(),
        images=images("train", count),
        chosen=np.arange(count),
        training=training,
        precision="fp32",
        seed=seed,
        device=torch.device("cpu"),
    )


def same(first: HoVerNet, second: HoVerNet) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def held_out(training: Training):
    test = images("test", 2)

    def measure(network: HoVerNet) -> Mapping[str, float]:
        predict = NucleiPredictor(network, training, "fp32", torch.device("cpu"))
        chosen = np.arange(len(test))
        compared = list(compare_images(predict, test, chosen))
        return mean_scores(count_images(compared, test, chosen))

    return measure


@pytest.mark.slow
def test_it_learns_to_find_and_type_discs(tmp_path: Path) -> None:
    training = replace(
        SHORT,
        phases=(
            Phase(epochs=1, batch_size=8, is_frozen=True, min_updates=40),
            Phase(epochs=1, batch_size=8, is_frozen=False, min_updates=260),
        ),
        input_px=64,
        width=1 / 8,
    )
    given = replace(setup(training, count=8), encoder=encoder().at_size(64))
    trained = train_hovernet(given, held_out(training), tmp_path)
    scores = held_out(training)(trained.network)
    assert scores["pq"] > 0.6 and scores["mpq"] > 0.5 and scores["dice"] > 0.85


def test_a_phase_is_as_long_as_its_epochs_or_its_fewest_updates() -> None:
    phase = Phase(epochs=50, batch_size=16, is_frozen=True, min_updates=200)
    assert updates_of(phase, 1323) == -(-50 * 1323 // 16)
    assert updates_of(phase, 49) == 200
    assert updates_of(replace(phase, min_updates=1), 3) == 50


def test_the_encoder_is_frozen_and_then_is_not(tmp_path: Path) -> None:
    given = setup()
    before = given.encoder.weights_sha256()
    frozen = replace(SHORT, phases=SHORT.phases[:1])
    trained = train_hovernet(replace(given, training=frozen), None, tmp_path / "frozen")
    assert trained.network.encoder.weights_sha256() == before
    both = train_hovernet(given, None, tmp_path / "both")
    assert both.network.encoder.weights_sha256() != before
    assert given.encoder.weights_sha256() == before
    assert both.facts["updates"] == [3, 5]


def test_the_seed_decides(tmp_path: Path) -> None:
    one = train_hovernet(setup(), None, tmp_path / "1").network
    again = train_hovernet(setup(), None, tmp_path / "2").network
    other = train_hovernet(setup(seed=1), None, tmp_path / "3").network
    assert same(one, again) and not same(one, other)


def _killed_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    take, left = Stepper.__call__, [count]

    def step(self: Stepper, *args):
        if left[0] == 0:
            left[0] = count
            raise KeyboardInterrupt
        left[0] -= 1
        return take(self, *args)

    monkeypatch.setattr(Stepper, "__call__", step)


def test_killed_and_resumed_it_gives_and_chooses_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[float] = []

    def measure(network: HoVerNet) -> Mapping[str, float]:
        # Any function of the weights alone will do.
        first = next(iter(network.foreground.parameters()))
        measured.append(float(first.detach().abs().sum()))
        return {"pq": measured[-1] % 1}

    whole = train_hovernet(setup(), measure, tmp_path / "whole")
    assert len(measured) == 3
    monkeypatch.setattr(training_module, "CHECKPOINT_EVERY", 2)
    _killed_after(3, monkeypatch)
    trained: Trained | None = None
    kills = 0
    while trained is None:
        try:
            trained = train_hovernet(setup(), measure, tmp_path / "killed")
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 2
    assert same(whole.network, trained.network) and whole.facts == trained.facts
    assert {"chosen_update", "pq", "windows", "updates"} <= trained.facts.keys()
    done = train_hovernet(setup(), measure, tmp_path / "killed")
    assert same(done.network, trained.network)


def test_the_best_weights_are_taken_and_not_the_last(tmp_path: Path) -> None:
    scores = iter([0.9, 0.1, 0.2])
    seen: list[dict[str, torch.Tensor]] = []

    def measure(network: HoVerNet) -> Mapping[str, float]:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return {"pq": next(scores)}

    trained = train_hovernet(setup(), measure, tmp_path)
    assert trained.facts["pq"] == 0.9 and trained.facts["chosen_update"] == 2
    for name, value in trained.network.state_dict().items():
        assert torch.equal(value, seen[0][name]), name


SLOW = replace(SHORT, learning_rate=1e-6)
"""Adam turns rounding errors of small gradients into whole steps, so steps must be small."""


def _on_a_rank(folder: str) -> tuple[list[np.ndarray], list[dict], str]:
    network = train_hovernet(setup(SLOW, count=4), None, Path(folder)).network
    lines = [
        line for number in (1, 2) for line in read_log(Path(folder, f"phase-{number}/log.jsonl"))
    ]
    odd = replace(SHORT, phases=(replace(SHORT.phases[0], batch_size=3),))
    said = ""
    if distributed.is_distributed():
        with pytest.raises(UsageError) as caught:
            train_hovernet(setup(odd), None, Path(folder) / "odd")
        said = str(caught.value)
    return [value.numpy() for value in network.state_dict().values()], lines, said


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    ((alone, expected, _),) = run_on_ranks(1, _on_a_rank, tmp_path / "1", str(tmp_path / "a"))
    (first, lines, said), (second, *_) = run_on_ranks(
        2, _on_a_rank, tmp_path / "2", str(tmp_path / "b")
    )
    assert "2 processes cannot share updates of 3 windows evenly" in said
    for one, main, other in zip(alone, first, second, strict=True):
        assert np.array_equal(main, other)
        assert np.allclose(one, main, atol=1e-4, rtol=1e-4)
    assert len(lines) == len(expected) >= 2
    for line, wanted in zip(lines, expected, strict=True):
        for name in ("loss", "grad_norm", "hv_msge", "types_dice", "foreground_dice"):
            assert line[name] == pytest.approx(wanted[name], rel=1e-3), name
