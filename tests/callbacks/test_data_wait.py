import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segfolio.callbacks import data_wait
from segfolio.callbacks.data_wait import DataWait
from tests.tiny import Tiny, loader, logged, trainer

# on a clock that only the test moves


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Callable[[], None]]:
    """`clock(seconds)` is a function that takes so long."""
    now = [0.0]

    def takes(seconds: float) -> Callable[[], None]:
        return lambda: now.__setitem__(0, now[0] + seconds)

    monkeypatch.setattr(data_wait, "_stamp", lambda device: now[0])
    return takes


def test_share_of_waiting_and_samples_per_second(tmp_path: Path, clock: Callable[..., Any]) -> None:
    """3 s for each batch of two, 1 s for each step, and validations of an hour that do not count."""
    trainer(tmp_path, DataWait()).fit(Tiny(clock(1), clock(3600)), loader(clock(3)), loader())
    assert logged(tmp_path, "train/data_wait") == [0.75] * 4
    assert logged(tmp_path, "train/samples_per_second") == [0.5] * 4


def test_rest_of_an_epoch_is_logged_at_its_end(tmp_path: Path, clock: Callable[..., Any]) -> None:
    trainer(tmp_path, DataWait(), log_every_n_steps=3, max_epochs=1).fit(Tiny(clock(1)), loader(clock(1)))
    assert logged(tmp_path, "train/data_wait") == [0.5, 0.5]
    assert logged(tmp_path, "step") == [2, 3]


def test_first_fetch_after_a_validation_is_left_out(tmp_path: Path, clock: Callable[..., Any]) -> None:
    """Of the third and fourth batch only the fourth one's fetch counts: 3 s of 5 s."""
    t = trainer(tmp_path, DataWait(), max_epochs=1, val_check_interval=2)
    t.fit(Tiny(clock(1), clock(9)), loader(clock(3)), loader())
    assert logged(tmp_path, "train/data_wait") == pytest.approx([0.75, 0.6])
    assert logged(tmp_path, "train/samples_per_second") == pytest.approx([0.5, 0.8])


def test_accumulated_batches_are_logged_once_per_step(tmp_path: Path, clock: Callable[..., Any]) -> None:
    t = trainer(tmp_path, DataWait(), max_epochs=1, accumulate_grad_batches=2, log_every_n_steps=1)
    t.fit(Tiny(clock(1)), loader(clock(3)))
    assert logged(tmp_path, "train/data_wait") == [0.75, 0.75]


@pytest.mark.parametrize(("fetch", "step", "starved"), [(0.05, 0.0, True), (0.0, 0.05, False)])
def test_share_on_the_real_clock(tmp_path: Path, fetch: float, step: float, starved: bool) -> None:
    t = trainer(tmp_path, DataWait(), log_every_n_steps=4)
    t.fit(Tiny(lambda: time.sleep(step)), loader(lambda: time.sleep(fetch)))
    assert (logged(tmp_path, "train/data_wait")[-1] > 0.5) == starved


# Progress
