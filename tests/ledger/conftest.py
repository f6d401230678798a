"""Experiments and finished runs without training: the files alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from segfolio.ledger.record import Record, recipe_hash
from segfolio.ledger.results import Results, Seed, finished_seed, results_path

HARDWARE = {"cpu": "a CPU", "cores": 2, "memory": 8, "gpu": "a GPU", "gpus": 1}
WHOLE = {"protocol": "whole image", "commit": "0123456789abcdef", "data": {"test": "f1"}, "hardware": HARDWARE}


def write_experiment(folder: Path, name: str = "net/row", **paper: Any) -> Path:
    path = folder / "experiments" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    block = {"title": "A Net", "arxiv": "1511.00561", "row": "a row", "deviations": ["none < some"], **paper}
    recipe = {"model": {"class_path": "Net"}, "data": {"batch_size": 2}, "trainer": {"max_steps": 9}}
    path.write_text(yaml.safe_dump({"paper": block, "seed_everything": 0, **recipe}, sort_keys=False))
    return path


def write_claims(folder: Path, *rows: dict[str, Any], name: str = "net") -> Path:
    path = folder / "experiments" / name / "claims.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    given = [{"row": "a test server's row", "expected": {"test/mIoU": 0.5}, "why": "no truth", **row} for row in rows]
    path.write_text(yaml.safe_dump({"paper": {"title": "A Net", "arxiv": "1511.00561"}, "rows": given}))
    return path


def write_run(run: Path, found: dict[str, float], /, trained: dict[str, Any] | None = None, **test: Any) -> Path:
    """A run that was trained until 10 o'clock and tested from 11 o'clock on."""
    base = {**WHOLE, "experiment": "net/row", "config": "c1", "seed": 0, "state": "finished"}
    (run / "test").mkdir(parents=True, exist_ok=True)
    Record(**{**base, "protocol": "", "finished": "2030-01-01T10", "data": {"train": "f0"}, **(trained or {})}).write(
        run
    )
    Record(**{**base, "started": "2030-01-01T11", **test}).write(run / "test")
    (run / "test" / "figures.json").write_text(json.dumps(found))
    return run


@pytest.fixture
def replicated(tmp_path: Path) -> Callable[..., Path]:
    """Writes an experiment's results over seeds 0, 1, ... of the given mIoU; returns their path."""

    def write(
        experiment: Path,
        *miou: float,
        overrides: tuple[str, ...] = (),
        slide: bool = False,
        others: dict[str, float] | None = None,
        **record: Any,
    ) -> Path:
        seeds: dict[int, Seed] = {}
        for seed, value in enumerate(miou):
            run = tmp_path / "runs" / experiment.parent.name / experiment.stem / "-".join(overrides) / f"seed{seed}"
            further = (others or {}) | ({"test/slide/mIoU": value + 0.05, "test/slide/dice": 0.2} if slide else {})
            whole = {"test/mIoU": value, "test/pixel_accuracy": 0.9, "test/IoU/car": 0.1, **further}
            write_run(run, whole, {"seed": seed, **record}, **{k: v for k, v in record.items() if k != "dirty"})
            found = finished_seed(run, experiment.parent)
            assert found is not None
            seeds[seed] = found
        path = results_path(experiment, "c1c1c1c1c1", overrides)
        Results("net/row", recipe_hash(yaml.safe_load(experiment.read_text())), overrides, seeds).write(path)
        return path

    return write
