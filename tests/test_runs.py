"""Where a run's files are."""

from pathlib import Path

import pytest

from segfolio.runs import experiment_name, mark_latest, new_run, run_of


def test_runs_are_numbered_and_latest_is_the_one_marked_last(tmp_path: Path) -> None:
    runs = [new_run("segnet/camvid", tmp_path) for _ in range(3)]
    latest = tmp_path / "segnet/camvid/latest"
    assert runs == [tmp_path / "segnet/camvid" / number for number in "012"]
    assert not latest.exists()
    for run in (runs[0], runs[2], runs[2], runs[1]):
        mark_latest(run)
        assert latest.resolve() == run
    assert {p.name for p in latest.parent.iterdir()} == {"0", "1", "2", "latest"}
    assert new_run("segnet/other", tmp_path).name == "0"


def test_a_run_with_a_folder_of_its_own_is_nobodys_latest(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    mark_latest(tmp_path / "mine")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_numbers_go_on_behind_the_highest_whatever_else_is_there(tmp_path: Path) -> None:
    for name in ("2", "10", "seed99", "notes"):
        (tmp_path / "unet/isbi" / name).mkdir(parents=True)
    assert new_run("unet/isbi", tmp_path).name == "11"


def test_two_runs_that_start_together_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both look before either has made its folder."""
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(()))
    assert [new_run("a/b", tmp_path).name for _ in range(2)] == ["0", "1"]


def test_latest_survives_a_move_of_all_runs(tmp_path: Path) -> None:
    mark_latest(new_run("a/b", tmp_path / "runs"))
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere/a/b/latest").resolve() == tmp_path / "elsewhere/a/b/0"


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID"])
def test_of_processes_started_together_the_first_makes_the_run(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    assert new_run("a/b", tmp_path) == tmp_path / "a/b/latest"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv(variable, "0")
    assert new_run("a/b", tmp_path) == tmp_path / "a/b/0"


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("experiments/segnet/camvid_367.yaml", "segnet/camvid_367"),
        ("runs/segnet/camvid_367/0/config.yaml", "segnet/camvid_367"),
        ("runs/segnet/camvid_367/12/config.yaml", "segnet/camvid_367"),
        ("runs/segnet/camvid_367/seed3/config.yaml", "segnet/camvid_367"),
        ("mine/config.yaml", "mine/config"),
        ("mine/0/other.yaml", "0/other"),
    ],
)
def test_the_name_of_an_experiment_is_its_folder_and_file(config: str, name: str) -> None:
    assert experiment_name(Path(config)) == experiment_name(Path(config).absolute()) == name


def test_a_config_of_the_latest_run_has_the_experiments_name(tmp_path: Path) -> None:
    mark_latest(new_run("segnet/camvid_367", tmp_path))
    assert experiment_name(tmp_path / "segnet/camvid_367/latest/config.yaml") == "segnet/camvid_367"


def test_without_a_config_a_run_is_unnamed() -> None:
    assert experiment_name(None) == "unnamed/config"


def test_the_run_of_a_checkpoint_is_where_its_config_lies(tmp_path: Path) -> None:
    run = new_run("a/b", tmp_path)
    mark_latest(run)
    checkpoint = tmp_path / "a/b/latest/checkpoints/last.ckpt"
    assert run_of(checkpoint) is None
    (run / "config.yaml").touch()
    assert run_of(checkpoint) == run


def test_the_run_of_a_seed_is_the_latest_too(tmp_path: Path) -> None:
    """As `replicate` names it, so that README's `latest` is there."""
    for name in ("seed0", "seed2"):
        (tmp_path / name).mkdir()
        mark_latest(tmp_path / name)
    assert (tmp_path / "latest").resolve() == tmp_path / "seed2"
