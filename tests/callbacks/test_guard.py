from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segfolio.callbacks.guard import NonFiniteGuard
from segfolio.errors import SegfolioError

NAN = float("nan")


class Loop:
    """What a trainer tells the guard of, step by step."""

    def __init__(self, scaler: object = None, **arguments: Any) -> None:
        self.guard = NonFiniteGuard(**arguments)
        self.trainer: Any = SimpleNamespace(global_step=0, precision_plugin=SimpleNamespace(scaler=scaler))
        self.guard.on_train_start(self.trainer, None)

    def run(self, *losses: float) -> "Loop":
        for loss in losses:
            self.guard.on_train_batch_start()
            self.trainer.global_step += 1
            batch: Any = SimpleNamespace(image_ids=[f"street_{self.trainer.global_step}"])
            self.guard.on_train_batch_end(self.trainer, None, {"loss": torch.tensor(loss)}, batch, 0)
        return self


@pytest.mark.parametrize("loss", [NAN, float("inf")])
@pytest.mark.parametrize("hook", ["on_validation_start", "on_train_end", "on_save_checkpoint"])
def test_it_stops_before_anything_is_kept(loss, hook):
    loop = Loop().run(1.0, loss)
    with pytest.raises(SegfolioError, match=r"not finite at step 2, images street_2"):
        getattr(loop.guard, hook)()


def test_a_step_is_read_when_the_next_but_one_starts():
    loop = Loop().run(1.0, NAN, 1.0)
    with pytest.raises(SegfolioError, match=r"not finite at step 2, images street_2"):
        loop.run(1.0)


def test_finite_losses_pass():
    Loop().run(*[1.5] * 5).guard.on_save_checkpoint()


def test_what_a_scaler_skips_stops_a_run_only_if_it_goes_on():
    loop = Loop(scaler=object(), skipped_in_a_row=3).run(NAN, NAN, 1.0, NAN, NAN)
    loop.guard.on_save_checkpoint()
    with pytest.raises(SegfolioError, match="3 times in a row, at step 6, images street_6"):
        loop.run(NAN).guard.on_save_checkpoint()


def test_one_at_least_is_not_finite():
    with pytest.raises(SegfolioError, match="skipped_in_a_row is 0, expected 1 or more"):
        NonFiniteGuard(skipped_in_a_row=0)
