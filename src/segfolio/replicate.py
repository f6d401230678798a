"""`segfolio replicate`: train and test an experiment with several seeds, and keep what came of it."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segfolio.errors import SegfolioError
from segfolio.figure import of_key
from segfolio.ledger.command import Parser
from segfolio.ledger.paper import paper_of, read_experiment
from segfolio.ledger.record import Record, changes_recipe, recipe_hash, recipes_of_run
from segfolio.ledger.results import Results, Seed, finished_seed, results_path
from segfolio.ledger.text import spread
from segfolio.resolved import resolved
from segfolio.runs import experiment_name
from segfolio.table import table

if TYPE_CHECKING:
    from segfolio.data.module import DataModule

_OURS = ("-c", "--config", "--seed_everything", "--ckpt_path")
"""What replicate itself says to fit and test."""


def replicate(arguments: Sequence[str]) -> int:
    """`CONFIG [--seeds 0 1 2] [--output DIR] [any override]`; returns the exit status: 1 where a seed failed, 130
    where it was stopped.

    Every fit and test is a process of its own, so that one that crashes loses nothing. A finished seed is
    skipped, an unfinished one goes on from its last checkpoint.

    Raises:
        SegfolioError: a mistake in the arguments or the experiment, before anything is run.
    """
    parser = Parser("replicate")
    parser.add_argument("config", type=Path, help="an experiment's YAML")
    parser.add_argument("--seeds", type=int, nargs="+", help="by default the seed_everything of the YAML")
    parser.add_argument("--output", type=Path, help="folder of the runs; by default runs/<paper>/<variant>")
    ours, overrides = divided(arguments)
    given = parser.parse_args(ours)
    replication = Replication(given.config, overrides, given.output)
    failed = {}
    for seed in given.seeds or [replication.seed]:
        try:
            replication.run(seed)
        except SegfolioError as error:
            failed[seed] = str(error)
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
            return 130
    replication.report()
    for seed, reason in failed.items():
        print(f"segfolio: seed {seed} failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


class Replication:
    """An experiment, how it is overridden, and the folder of its runs.

    Args:
        config: the experiment's YAML.
        overrides: arguments that go to fit and test as they are.
        output: holds `seed<k>` of each seed. By default `runs/<paper>/<variant>`, and a folder in it for every
            other recipe that overrides make of it.

    Raises:
        SegfolioError: a record-only experiment, an override that is not one, a config that fit would refuse, a
            limit to the images of the test.
    """

    def __init__(self, config: Path, overrides: Sequence[str], output: Path | None = None) -> None:
        written = read_experiment(config)
        paper = paper_of(written, config)
        if paper and paper.status == "record-only":
            raise SegfolioError(f"{config} is record-only: it holds the paper's figures and cannot be run here")
        self.config, self.arguments = config, list(overrides)
        self._fingerprints = dict[str, str]()
        self.seed = int(written.get("seed_everything", 0))
        changes = tuple(f"{k}={v}" for k, v in as_pairs(self.arguments) if changes_recipe(k))
        if self.resolved["trainer"].get("limit_test_batches") is not None:
            raise SegfolioError(f"{config}: replicate tests the whole split; leave out trainer.limit_test_batches")
        self.recipe = recipe_hash(self.resolved)
        self.results_path = results_path(config, self.recipe, changes)
        self.results = Results(experiment_name(config), recipe_hash(written), changes, {})
        if self.results_path.exists() and (earlier := Results.read(self.results_path)).recipe == self.results.recipe:
            self.results = earlier
        runs = Path("runs", self.results.experiment)
        self.output = output or (runs / self.recipe[:8] if changes else runs)

    def run(self, seed: int) -> None:
        """Bring one seed to its end, and the results up to date.

        Raises:
            SegfolioError: a fit or a test that failed or that there cannot be, a folder that holds another run.
        """
        run = self.output / f"seed{seed}"
        last = run / "checkpoints" / "last.ckpt"
        record, done = Record.read(run), finished_seed(run, self.results_path.parent)
        if record:
            self._expect_same(done.record if done else record, run)
        if done:
            print(f"seed {seed} is finished: {run}", flush=True)
            return self._keep(seed, done)
        if record is None or record.state != "finished":
            self.expect_test()
            if record and not last.exists():
                shutil.rmtree(run)  # stopped before its first checkpoint
            self._loop("fit", seed, run, *(["--ckpt_path", str(last)] if last.exists() else []))
        self._loop("test", seed, run / "test", "--ckpt_path", str(last))
        if (done := finished_seed(run, self.results_path.parent)) is None:
            raise SegfolioError(f"{run} was tested but holds no figures that belong to its training")
        return self._keep(seed, done)

    def report(self) -> None:
        """Print mean ± standard deviation and median of every figure."""
        declared = self.results.declared
        rows = [
            (figure.label(key), spread(figure, over), figure.text(over.median))
            for key, over in self.results.summary().items()
            if (figure := of_key(key, declared))
        ]
        if rows:
            heading = f"{self.results.experiment}, seeds {', '.join(map(str, sorted(self.results.seeds)))}"
            print(f"\n{heading}\n{table(('figure', 'mean ± std (n)', 'median'), rows, right=(1, 2))}")
            print(f"\nresults: {self.results_path}")

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """The config with every default."""
        found = resolved(self.config, self.arguments)
        if found is None:
            raise SegfolioError(f"{self.config} cannot be run, for the reason above")
        return found

    @cached_property
    def data(self) -> "DataModule":
        """The data as they are now."""
        from jsonargparse import ArgumentParser

        from segfolio.data.module import DataModule

        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(DataModule, "data")
        data: DataModule = parser.instantiate(parser.parse_object({"data": self.resolved["data"]})).data
        return data

    def fingerprint(self, split: str) -> str:
        """Of a split as it is now."""
        from segfolio.data.checks.fingerprint import fingerprint

        if split not in self._fingerprints:
            self._fingerprints[split] = fingerprint(self.data.split(split))
        return self._fingerprints[split]

    def expect_test(self) -> None:
        """Raises the one sentence where what would be trained cannot be tested."""
        from jsonargparse._util import import_object
        from lightning.pytorch import LightningModule

        model = import_object(self.resolved["model"]["class_path"])
        if model.test_step is LightningModule.test_step:
            raise SegfolioError(
                f"replicate trains and tests, but {model.__name__} has no test_step; train it by `segfolio fit`"
            )
        try:
            self.data.split(self.data.test_split)
        except SegfolioError as error:
            raise SegfolioError(
                f"replicate trains and tests, and there is nothing to test on: {error} (data.test_split); train by "
                "`segfolio fit`, or give another"
            ) from None

    def _command(self, loop: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "segfolio.cli", loop, "-c", str(self.config), *self.arguments, *arguments]

    def _loop(self, loop: str, seed: int, folder: Path, *arguments: str) -> None:
        print(f"seed {seed}: {loop} in {folder}", flush=True)
        command = self._command(loop, "--seed_everything", str(seed), "--output", str(folder), *arguments)
        if status := _awaited(command):
            raise SegfolioError(f"{loop} ended with status {status}; what it said is above")

    def _expect_same(self, record: Record, run: Path) -> None:
        other = [] if self.recipe in recipes_of_run(run, record) else ["config"]
        if any(self.fingerprint(split) != found for split, found in record.data.items()):
            other.append("data")
        if other:
            raise SegfolioError(
                f"{run} holds a run of another {' and '.join(other)}; move it away, or give --output DIR"
            )

    def _keep(self, seed: int, done: Seed) -> None:
        seeds = {**self.results.seeds, seed: done}
        same = {k: s for k, s in seeds.items() if s.record.data == done.record.data}
        self.results = replace(self.results, seeds=same)
        self.results.write(self.results_path)


def _awaited(command: Sequence[str]) -> int:
    """The exit status of a process, to which Ctrl-C and SIGTERM are left: it ends its step and keeps it.

    Raises:
        KeyboardInterrupt: one of them came.
    """
    came: list[int] = []
    with subprocess.Popen(command) as process:

        def leave_it(number: int, _: object) -> None:
            came.append(number)
            if number == signal.SIGTERM:  # Ctrl-C reaches all processes of a terminal by itself
                process.terminate()

        before = {each: signal.signal(each, leave_it) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            status = process.wait()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
    if came:
        raise KeyboardInterrupt
    return status


def divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is said to replicate itself, and what it hands on."""
    ours: list[str] = []
    overrides: list[str] = []
    part = ours
    for argument in arguments:
        if argument.startswith("-") and not argument[1:2].isdigit():
            part = ours if argument.partition("=")[0] in ("--seeds", "--output", "--help", "-h") else overrides
        part.append(argument)
    return ours, overrides


def as_pairs(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """`["--a.b", "1", "--c=2"]` -> `[("a.b", "1"), ("c", "2")]`.

    Raises:
        SegfolioError: something else, or what replicate says itself.
    """
    pairs: list[tuple[str, str]] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in _OURS:
            raise SegfolioError(f"replicate sets {key} itself; give CONFIG and --seeds")
        if key.startswith("--"):
            pairs.append((key[2:], value))
        elif pairs and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0], argument)
        else:
            raise SegfolioError(f"replicate does not understand {argument!r}; overrides are given as --key value")
    return pairs
