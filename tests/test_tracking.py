import json
import os
import subprocess
import sys
from pathlib import Path

from segfolio import tracking
from segfolio.tracking import MetricsFile, Wandb, build_loggers
from tests.tiny import logged
from tests.wandb_file import history


def test_the_file_has_every_entry_at_once_and_a_new_run_starts_anew(tmp_path: Path) -> None:
    for values in ((1.0, 2.0), (4.0,)):
        logger = build_loggers(tmp_path, "x")[0]
        for value in values:
            logger.log_metrics({"a": value, "class, with comma": 3.0}, step=0)
            assert logged(tmp_path, "a")[-1] == value
    assert logged(tmp_path, "a") == [4]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_resumed_file_goes_on_behind_the_checkpoint(tmp_path: Path) -> None:
    killed = MetricsFile(tmp_path)
    for value in (1.0, 2.0, 3.0):  # the third came after the checkpoint
        killed.log_metrics({"a": value, "class, with comma": value}, step=0)
    resumed = MetricsFile(tmp_path)
    resumed.rewind(2)
    for metrics in ({"a": 3.0, "class, with comma": 3.0}, {"a": 4.0, "b": 1.0}):
        resumed.log_metrics(metrics, step=0)
    assert logged(tmp_path, "a") == [1, 2, 3, 4]
    assert logged(tmp_path, "class, with comma") == [1, 2, 3]
    assert logged(tmp_path, "b") == [1]
    assert resumed.calls == 4


def test_a_resumed_wandb_run_has_every_entry_once(tmp_path: Path) -> None:
    """Whatever the killed process had written: here it is all there, and one entry past the checkpoint."""
    import wandb

    try:
        killed = Wandb(tmp_path, "x", "p", None)
        for step in range(4):
            killed.log_metrics({"a": float(step)}, step=step)
        name = killed.experiment.id
        wandb.finish()
        resumed = Wandb(tmp_path, "x", "p", None)
        resumed.rewind(3)
        for step in range(3, 6):
            resumed.log_metrics({"a": float(step)}, step=step)
        assert resumed.experiment.id == name
    finally:
        wandb.finish()
    entries = history(tmp_path / "wandb", 6)
    assert [number for number, _ in entries] == list(range(6))
    assert [json.loads(values["a"]) for _, values in entries] == list(range(6))


def test_each_run_folder_is_a_run_of_its_own_in_wandb(tmp_path: Path) -> None:
    import wandb

    try:
        runs = []
        for seed in (0, 1):
            logger = build_loggers(tmp_path / str(seed), "segnet/camvid", {"seed": seed})[1]
            runs.append(logger.experiment)  # type: ignore[attr-defined]
            logger.log_metrics({"val/mIoU": 0.5}, step=seed)
        assert runs[0].id != runs[1].id
        assert [run.config["seed"] for run in runs] == [0, 1]
        assert [Path(run.dir).parents[2].name for run in runs] == ["0", "1"]
        assert runs[1].name == "segnet/camvid"
        assert runs[1].project == "segfolio"
    finally:
        wandb.finish()


def test_wandb_without_a_key_or_out_of_reach_is_offline_and_does_not_ask(tmp_path: Path) -> None:
    """In a process of its own that has no settings of W&B and whose standard input is closed."""
    code = f"""
import os, wandb, segfolio.tracking as tracking
from pathlib import Path
tracking.INIT_TIMEOUT = 2.0
for folder, key in (("no_key", {{}}), ("out_of_reach", {{"WANDB_API_KEY": {"0" * 40!r}}})):
    os.environ.update(key, WANDB_BASE_URL="http://127.0.0.1:9")
    wandb.finish()
    wandb.teardown()  # reads the environment again
    logger = tracking.build_loggers(Path(folder), "x")[1]
    logger.log_metrics({{"a": 1.0}}, step=0)
    assert logger.experiment.offline
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {
        "HOME": str(tmp_path),
        "NETRC": "none",
        "PYTHONPATH": str(Path(tracking.__file__).parents[1]),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("UserWarning: W&B is out of reach (") == 1
    assert len(list(tmp_path.glob("no_key/wandb/offline-run-*/run-*.wandb"))) == 1
    assert len(list(tmp_path.glob("out_of_reach/wandb/offline-run-*/run-*.wandb"))) == 1
