"""`make gpu`: what a CUDA device can say of segfolio in nine minutes, and no network.

    python -m benchmarks.gpu [--minutes 9] [--output runs/gpu] [--camvid DIR]

1. the tests of tests/gpu;
2. `segfolio speed` of every table that states times;
3. the speed card, see `benchmarks.gpu.card`;
4. SegNet and U-Net on CamVid at 240 x 180, seed after seed for as long as the time goes, by `segfolio replicate`.

A further call goes on where this one ended: what is done is not done again, and a training starts from its last
checkpoint. Figures and times are for `segfolio results`; `output/` gets the logs, the card, and copies of the ledger's
files, to be carried back. `--tiny` goes through all of it on a CPU, without figures that mean anything.
"""

import argparse
import hashlib
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
import yaml

from benchmarks.gpu.budget import Budget, run_within
from benchmarks.gpu.card import card, shown
from segfolio.code_state import code_state
from segfolio.errors import SegfolioError
from segfolio.ledger.claims import CLAIMS
from segfolio.ledger.record import code
from segfolio.ledger.speed import checked_speeds

REPOSITORY = Path(__file__).parents[2]
PACKED = REPOSITORY / "build/gpu/CamVid_240x180"
SAMPLE = REPOSITORY.parent / "shared/data/CamVid"
NETWORKS, SEEDS = ("segnet", "unet"), range(3)
LAST = 15  # seconds in which tables are printed and files copied


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 1 where tests failed, 2 after a mistake."""
    given = _parsed(arguments)
    try:
        return _all(given)
    except SegfolioError as error:
        print(f"make gpu: {error}", file=sys.stderr)
        return 2


def _all(given: argparse.Namespace) -> int:
    if given.minutes <= 0:
        raise SegfolioError(f"--minutes is {given.minutes:g}; give more than 0, 9 is the usual")
    if not given.tiny and not torch.cuda.is_available():
        raise SegfolioError("there is no CUDA device here; --tiny goes through all of it on a CPU")
    device = torch.device("cpu" if given.tiny else "cuda")
    budget = Budget(60 * given.minutes - LAST)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU, tiny networks"
    print(f"{name}, torch {torch.__version__}; at most {given.minutes:g} minutes, logs in {given.output}", flush=True)
    status = tests(given.output, given.tiny, budget.part(0.35))
    tables(given.output, given.experiments, given.tiny, budget.part(0.25))
    lines = card(given.output / "card.json", device, given.tiny, budget.part(0.45))
    text = shown(lines)
    (given.output / "card.txt").write_text(
        f"{name}, torch {torch.__version__}; {(code()['commit'] or '')[:7]}\n\n{text}\n"
    )
    trainings(given, budget)
    for file in _of_ledger(given.experiments):
        copy = given.output / "ledger" / file.relative_to(given.experiments)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    print(f"\n{text}\n\n{ledger(given.experiments)}", flush=True)
    return status


def tests(output: Path, tiny: bool, budget: Budget) -> int:
    """`tests/gpu`, unless they have passed with this code; on a CPU they are collected alone."""
    stamp = output / "tests_passed"
    state = hashlib.sha256("\n".join(code_state()).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == state:
        print("tests/gpu: passed before, with this code", flush=True)
        return 0
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", *(["--collect-only"] if tiny else [])]
    found = run_within(budget, command, output / "tests.log", grace=5)
    words = {0: "passed", None: "not all done in their time; a further call runs them again"}
    print(f"tests/gpu: {words.get(found, f'failed, see {output}/tests.log')}", flush=True)
    if found == 0:
        stamp.write_text(state)
    return 0 if found in (0, None) else 1


def tables(output: Path, experiments: Path, tiny: bool, budget: Budget) -> None:
    """`segfolio speed` of each table that has two rows or more and was not measured on this device."""
    found: dict[str, list[str]] = {}
    for path in sorted(experiments.glob("*/*.yaml")):
        stated = {} if path.name == CLAIMS else yaml.safe_load(path.read_text()).get("paper", {})
        speeds = checked_speeds(stated["speed"]) if "speed" in stated else []
        for table in dict.fromkeys(speed.table for speed in speeds if speed.size):
            found.setdefault(table, []).append(str(path))
    few = ["--device=cpu", "--rounds=1", "--warm_up=1"] if tiny else ["--device=cuda", "--rounds=5"]
    marks = {name: output / f"{hashlib.sha256(name.encode()).hexdigest()[:8]}.table" for name in found}
    waiting = [name for name, paths in found.items() if len(paths) > 1 and not marks[name].exists()]
    for place, name in enumerate(waiting):
        share = budget.part(1 / (len(waiting) - place))  # a table that takes long leaves the others theirs
        command, done = [*_segfolio("speed"), *found[name], *few], marks[name]
        ended = run_within(share, command, output / "speed.log", grace=2)
        words = {0: "measured", None: "not done in its time; a further call measures it"}
        print(f"{name}: {words.get(ended, f'failed, see {output}/speed.log')}", flush=True)
        if ended == 0:
            done.touch()


def trainings(given: argparse.Namespace, budget: Budget) -> None:
    """The networks in turns, seed by seed, until the time is up."""
    root, kind = _camvid(given)
    quiet = [] if find_spec("wandb") else ["--trainer.logger=false"]
    for seed in SEEDS[:1] if given.tiny else SEEDS:
        for network in NETWORKS:
            config = given.experiments / network / f"{kind}.yaml"
            if budget.left() < (1 if given.tiny else 30):
                print(f"{network}, seed {seed}: no time is left for it; a further call goes on", flush=True)
                return
            where = [f"--data.root={root}", f"--trainer.accelerator={'cpu' if given.tiny else 'gpu'}"]
            where += ["--trainer.devices=1", f"--output={given.runs / network / kind}", *quiet, "--seeds", str(seed)]
            command = [*_segfolio("replicate"), str(config), *where]
            ended = run_within(budget, command, given.output / "trainings.log")
            words = {0: "trained and tested", None: "stopped as the time is up; a further call goes on"}
            told = words.get(ended, f"failed, see {given.output}/trainings.log")
            print(f"{network}/{kind}, seed {seed}: {told}", flush=True)


def _camvid(given: argparse.Namespace) -> tuple[Path, str]:
    """Where CamVid is, and the name of its experiments: the small set, or else the sample of 60 images."""
    for root, kind in ((given.camvid, "camvid_240x180"), (PACKED, "camvid_240x180"), (SAMPLE, "camvid_sample60")):
        if root is not None and (root / "train.txt").is_file():
            return root, kind
    raise SegfolioError(
        f"there is no CamVid in {given.camvid or PACKED}; make it by `make gpu-pack CAMVID=PATH/TO/CamVid`, and carry "
        "build/gpu along"
    )


def _segfolio(command: str) -> list[str]:
    return [sys.executable, "-m", "segfolio.cli", command]


def _of_ledger(experiments: Path) -> list[Path]:
    """What `segfolio results` reads of this."""
    return [*experiments.glob("speed/*.json"), *experiments.glob("*/camvid_240x180.results.json")]


def ledger(experiments: Path) -> str:
    """The rows that this is about, as the terminal shows them."""
    from segfolio.ledger.rows import ledger as rows_of
    from segfolio.ledger.text import plain

    rows = [
        row for row in rows_of(experiments)[0] if (row.ran and "camvid_240x180" in row.name) or "ratio" in row.states
    ]
    return plain(rows, 120) if rows else "nothing of it is in the ledger yet"


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make gpu", description="tests, times, a speed card and trainings on a GPU")
    parser.add_argument("--minutes", type=float, default=9.0, help="at most; 9 if not given")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), help="logs, the card, copies for the ledger")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the trainings")
    parser.add_argument("--experiments", type=Path, default=Path("experiments"), help="folder of the experiments")
    parser.add_argument("--camvid", type=Path, help="CamVid at 240 x 180; build/gpu/CamVid_240x180 if not given")
    parser.add_argument("--tiny", action="store_true", help="tiny networks on a CPU: whether it goes through")
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    return given


if __name__ == "__main__":
    raise SystemExit(main())
