"""Does what we train learn as much as what lightly trains? Four methods on real tissue, on a CPU.

    python -m bench.learning                        # all that is missing, then the table
    python -m bench.learning --only dino lightly 0  # one part
    python -m bench.learning --methods dino --sides official lightly --seeds 0 1 2 3 4
    python -m bench.learning --report               # the table of what there is

Each part is one line of `<out>/results.jsonl`. A run that is killed goes on where it was: finished
parts stay, and our own half-finished one resumes from its checkpoint.

Data: pre-training on 96-px tiles without labels of LC25000 (colon and lung, training part: 70 % of
the source images) and PatchCamelyon (training part) together. Evaluation on LC25000's held-out
source images (5 classes) and on PatchCamelyon's test part, by the protocol `strict`: nearest
neighbours and logistic regression on frozen embeddings of 96-px images, balanced accuracy, plain
and with `stain-shift-v1`.

Sides, for each of MoCo v2, SwAV, Barlow Twins and DINO:

- `official`: our method with its official preset;
- `pathology`: the same with our pathology preset;
- `lightly`: lightly's transform, head, loss, momentum update and schedule, in the steps of its own
  ImageNet benchmark scripts (see `_learning_lightly.py`).

Baselines: the same encoder untrained (`random`), and `colour_histogram`.

What all sides of a method share, since lightly leaves it to its user or since a run of 200 updates
needs it; `_learning_settings.py` has the numbers:

- ResNet-10-T, from the same weights with the same seed, in float32; two views of 64 px, and with
  multi-crop four more of 32 px; batches of 64 tiles, the same tiles in the same order;
- equal tiles seen for all methods, 12,800, although multi-crop computes more on each;
- AdamW with a linear warm-up and a cosine to nothing: neither LARS nor SGD gets anywhere in 200
  updates. Its peak is chosen for each side from the same three by runs of half the length with
  seed 99, by the mean balanced accuracy that the probes choose by, which test images have no part
  in (our pathology side takes the official's);
- narrower heads, fewer prototypes and outputs, a queue of 1,024 keys; a key's momentum of 0.99 and
  a teacher's from 0.99, since at 0.999 neither would leave its start in 200 updates;
- DINO's crop scales are those that its README and lightly take for ResNets.

What differs is what either side has built: views (filters, blur, flips), head (lightly's SwAV
prototypes have a bias), loss, what passes the network together and so shares BatchNorm, the order
of momentum updates, which parameters are decayed, how gradients are clipped, the warm-up's offset.

The gate: for each method the 95 % interval of `official` - `lightly`, in the mean over both data
sets and both probes on plain images, does not reach below -2 points. Intervals draw source images
of LC25000, images of PatchCamelyon, and seeds. The exit status is 1 where the gate fails.
"""

import argparse
import functools
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench import _learning_lightly_run
from bench import _learning_settings as settings
from bench._learning_data import TILE_PX, Data, open_data
from bench._learning_parts import Part, Results, all_parts, asked_parts, expected_s
from bench._learning_scores import SIDES, Scores, evaluate, gate, markdown, truth
from eosin import atomic
from eosin.embeddings.extract import NO_SHIFT
from eosin.encoders import Encoder, build_encoder
from eosin.encoders.colour_histogram import NAME as COLOUR_HISTOGRAM
from eosin.engine.log import read_log
from eosin.errors import InputError, Interrupted
from eosin.pretrain.run import pretrain_encoder
from eosin.provenance import available_cores, sha256_of, stamp
from eosin.weights import load_encoder


def measure_part(
    part: Part, lr: float | None, root: Path, out: Path, updates: int
) -> dict[str, Any]:
    """Trains and evaluates one part in a process of its own, and gives its line.

    A learning rate with which training diverges is a result too: nobody chooses it.

    Args:
        part: what to run.
        lr: the peak of its learning rate; `None` for a baseline.
        root: folder of the data sets.
        out: folder of the benchmark.
        updates: length of a whole run.
    """
    data = _data(root, out)
    started = time.perf_counter()
    folder = out / "unfinished" / part.name.replace(" ", "-")
    line: dict[str, Any] = {"kind": "run", "method": part.method, "side": part.side}
    line |= {"seed": part.seed, "lr_given": part.lr}
    try:
        encoder, about = _prepare(part, lr, data, folder, updates)
        trained = time.perf_counter()
        measured = evaluate(encoder, data)
    except (FloatingPointError, InputError) as error:
        if part.lr is None or "finite" not in str(error):
            raise
        print(f"  diverged: {error}", flush=True)
        trained = time.perf_counter()
        about, measured = {"lr": part.lr}, {"predicted": {}, "selection": {"diverged": 0.0}}
    seconds = {"train_s": trained - started, "evaluate_s": time.perf_counter() - trained}
    shutil.rmtree(folder, ignore_errors=True)
    return {**line, **about, **seconds, **measured, "created": stamp()["created"]}


@functools.cache
def _data(root: Path, out: Path) -> Data:
    return open_data(root, out)


def _prepare(
    part: Part, lr: float | None, data: Data, folder: Path, updates: int
) -> tuple[Encoder, dict[str, Any]]:
    """The encoder of a part, for images of 96 px, and how it came about."""
    if part.method == COLOUR_HISTOGRAM:
        return build_encoder(COLOUR_HISTOGRAM), {}
    if lr is None:
        encoder = build_encoder(settings.ENCODER, input_px=TILE_PX)
        return encoder.reinitialised(part.seed), {}
    updates = round(updates * settings.SWEEP_SHARE) if part.lr is not None else updates
    if part.side == "lightly":
        trained, losses = _learning_lightly_run.pretrain(
            part.method, lr, part.seed, updates, data.tiles, folder
        )
    else:
        run = folder / "run"
        config = settings.our_run(part.method, part.side, lr, part.seed, updates, data.tiles, run)
        trained = load_encoder(pretrain_encoder(config))
        losses = [line["loss"] for line in read_log(run / "log.jsonl")]
    card = replace(trained.card, input_px=TILE_PX, name=part.name)
    about = {"lr": lr, "updates": updates, "losses": [losses[0], losses[-1]]}
    return Encoder(trained.model, card).eval(), about


def run_missing(parts: Sequence[Part], results: Results, given: argparse.Namespace) -> None:
    """Runs the parts that have no line yet, and says how long the rest will take.

    One process of one thread for each core: so small a network gains nothing from a second thread.
    """
    missing = [part for part in parts if results.find(part) is None]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        given.jobs, mp_context=context, initializer=_start_worker, initargs=(os.getpid(),)
    ) as pool:
        # The learning rates of the rest are chosen by the first.
        for is_sweep in (True, False):
            now = [
                part for part in missing if (part.lr is not None or _is_baseline(part)) == is_sweep
            ]
            running = {
                pool.submit(
                    measure_part,
                    part,
                    _learning_rate(part, results),
                    given.data,
                    given.out,
                    given.updates,
                ): part
                for part in now
            }
            for done in as_completed(running):
                results.add(done.result())
                missing.remove(running[done])
                _tell(running[done], results, missing, given.jobs)


def _tell(part: Part, results: Results, missing: Sequence[Part], jobs: int) -> None:
    line = results.runs()[-1]
    left_s = sum(expected_s(each, results) for each in missing) / jobs
    print(
        f"{part.name}: trained in {line['train_s']:.0f} s, evaluated in "
        f"{line['evaluate_s']:.0f} s; {len(missing)} parts, about {left_s / 3600:.1f} h left",
        flush=True,
    )


def _is_baseline(part: Part) -> bool:
    return part.side == "baseline"


def _learning_rate(part: Part, results: Results) -> float | None:
    if _is_baseline(part):
        return None
    return part.lr if part.lr is not None else results.chosen_lr(part.method, part.side)


def _start_worker(parent: int) -> None:
    """One thread, and no life beyond the parent's, which may be killed."""
    torch.set_num_threads(1)

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def report(results: Results, *, as_json: bool) -> bool:
    """Prints the tables; whether no method that was measured fails the gate."""
    known = next(line["truth"] for line in results.lines if line["kind"] == "about")
    runs = [line for line in results.runs() if line["lr_given"] is None]
    scores = Scores(known, runs)
    print(markdown(scores))
    verdicts = {method: gate(scores, method) for method in settings.METHODS}
    if as_json:
        print(json.dumps(_summary(scores, verdicts)))
    return False not in verdicts.values()


def _summary(scores: Scores, verdicts: Mapping[str, bool | None]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for method, holds in verdicts.items():
        found = scores.difference(method, "official", "lightly", NO_SHIFT)
        if found is not None:
            row: dict[str, Any] = {"method": method, "gate_holds": holds}
            row |= {"official_minus_lightly": found.value, "interval": [found.low, found.high]}
            rows.append({**row, "seeds": scores.seeds(method, "official")})
    return {"name": "learning", "rows": rows, "environment": stamp()}


def main() -> None:
    """Runs the benchmark."""
    default_data = Path(os.environ.get("EOSIN_TEST_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench-learning"))
    parser.add_argument("--data", type=Path, default=default_data, help="has lc25000/ and pcam/")
    parser.add_argument("--only", nargs=3, metavar=("METHOD", "SIDE", "SEED"))
    parser.add_argument("--report", action="store_true", help="print the table and run nothing")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(settings.SEEDS))
    parser.add_argument("--methods", nargs="+", choices=settings.METHODS, default=settings.METHODS)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--updates", type=int, default=settings.UPDATES, help="for a short try")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="parts at a time")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    given = parser.parse_args()
    if given.report:
        results = Results(given.out, None)
        if not results.lines:
            raise SystemExit(f"{given.out} has no results yet")
    else:
        try:
            results = _run(given)
        except (KeyboardInterrupt, Interrupted):
            raise SystemExit("stopped; the same command goes on") from None
    if given.only is None or given.report:
        raise SystemExit(0 if report(results, as_json=given.json) else 1)


def _run(given: argparse.Namespace) -> Results:
    with atomic.locked(given.out):
        data = open_data(given.data, given.out)
        identity = {
            "settings": settings.describe(given.updates),
            "settings_sha256": sha256_of(settings.describe(given.updates)),
            "data_sha256": data.sha256(),
            "lightly": version("lightly"),
            "truth": truth(data),
        }
        identity = json.loads(json.dumps(identity))  # as it is read back
        results = Results(given.out, identity)
        if given.only is None:
            parts = [
                part
                for part in all_parts(given.seeds)
                if _is_baseline(part) or (part.method in given.methods and part.side in given.sides)
            ]
        else:
            method, side, seed = given.only
            parts = asked_parts(method, side, int(seed))
        run_missing(parts, results, given)
    return results


if __name__ == "__main__":
    main()
