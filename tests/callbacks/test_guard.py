from types import SimpleNamespace

import pytest
import torch

from segfolio.callbacks.guard import NonFiniteGuard
from segfolio.errors import SegfolioError


def after_step(loss: float) -> NonFiniteGuard:
    guard = NonFiniteGuard()
    batch = SimpleNamespace(image_ids=["street_7", "street_9"])
    guard.on_train_batch_end(SimpleNamespace(global_step=12), None, {"loss": torch.tensor(loss)}, batch, 0)
    return guard


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_start", "on_train_end", "on_save_checkpoint"])
def test_it_stops_before_anything_else_happens(loss, hook):
    with pytest.raises(SegfolioError, match=r"not finite at step 12, images street_7, street_9"):
        getattr(after_step(loss), hook)()


def test_a_finite_loss_passes():
    after_step(1.5).on_save_checkpoint()
