"""`EMA`: the average by its formula, what validation sees, and a run that goes on as if it had not been stopped."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from segfolio.callbacks.checkpoints import Checkpoints
from segfolio.callbacks.ema import EMA
from segfolio.errors import SegfolioError
from tests.families.whole_runs import WHOLE_RUNS, WholeRun
from tests.tiny import Tiny, loader, trainer


class Watched(Tiny):
    """Remembers its weights after each step, and those of each validation."""

    def __init__(self) -> None:
        super().__init__()
        self.stepped, self.validated = list[Tensor](), list[Tensor]()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Any:
        self.seen += 1
        return super().training_step(batch, batch_idx)

    def on_train_batch_end(self, *_: Any) -> None:
        self.stepped.append(weights(self))

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated.append(weights(self))
        super().validation_step(batch, batch_idx)


def weights(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def fit(run: Path, ema: EMA, epochs: int, resume: bool = False) -> Watched:
    torch.manual_seed(0)
    model = Watched()
    t = trainer(run, ema, Checkpoints(), max_epochs=epochs, enable_checkpointing=True, num_sanity_val_steps=0)
    t.fit(model, loader(), loader(), ckpt_path=run / "checkpoints/last.ckpt" if resume else None)
    return model


def saved(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def test_the_average_follows_its_formula_and_validation_is_of_it(tmp_path: Path) -> None:
    model = fit(tmp_path, ema := EMA(decay=0.9, ramp=5), epochs=2)
    first, *others = model.stepped
    average = first
    for step, weight in enumerate(others, 1):
        kept = 0.9 * (1 - math.exp(-step / 5))
        assert ema.decay_after(step) == pytest.approx(kept)
        average = kept * average + (1 - kept) * weight
    torch.testing.assert_close(weights(model), average)
    torch.testing.assert_close(model.validated[-1], average)
    checkpoint = saved(tmp_path)
    names = [name for name, _ in model.named_parameters()]
    for key, expected in (("state_dict", average), ("current_model_state", others[-1])):
        torch.testing.assert_close(torch.cat([checkpoint[key][name].flatten() for name in names]), expected)
    assert checkpoint["state_dict"]["seen"] == len(model.stepped)  # counts are not averaged


@pytest.mark.parametrize("run", WHOLE_RUNS, ids=lambda run: run.name)
def test_every_family_is_validated_and_tested_by_its_average(run: WholeRun, tmp_path: Path) -> None:
    stepped, evaluated = list[Tensor](), list[Tensor]()

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: torch.nn.Module, *_: Any) -> None:
            stepped.append(weights(pl_module))

        def on_validation_batch_start(self, trainer: Any, pl_module: torch.nn.Module, *_: Any) -> None:
            evaluated.append(weights(pl_module))

        on_test_batch_start = on_validation_batch_start

    run(tmp_path, accelerator="cpu", num_sanity_val_steps=0, callbacks=[EMA(0.5, 0), Watch()])
    first, second = stepped
    assert len(evaluated) >= 2
    assert not torch.equal(first, second)
    for weight in evaluated:
        torch.testing.assert_close(weight, (first + second) / 2)


def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", EMA(0.9, 5), epochs=3)
    fit(tmp_path / "parts", EMA(0.9, 5), epochs=1)
    parts = fit(tmp_path / "parts", EMA(0.9, 5), epochs=3, resume=True)
    assert torch.equal(weights(parts), weights(whole))
    assert torch.equal(parts.stepped[-1], whole.stepped[-1])
    assert not any(torch.equal(*pair) for pair in pairwise(whole.stepped))


def test_a_checkpoint_inside_a_validation_holds_the_average_as_state(tmp_path: Path) -> None:
    found: dict[str, Any] = {}

    class Writes(Watched):
        def on_validation_batch_end(self, *_: Any) -> None:
            self.trainer.save_checkpoint(tmp_path / "inside.ckpt")
            found.update(average=weights(self), step=self.stepped[-1])

    torch.manual_seed(0)
    t = trainer(tmp_path, EMA(0.9, 5), max_epochs=1, num_sanity_val_steps=0)
    t.fit(model := Writes(), loader(), loader())
    checkpoint = torch.load(tmp_path / "inside.ckpt", weights_only=True)
    for key, expected in (("state_dict", found["average"]), ("current_model_state", found["step"])):
        values = torch.cat([checkpoint[key][name].flatten() for name, _ in model.named_parameters()])
        assert torch.equal(values, expected)


def test_what_is_no_weight_is_as_it_is_in_every_checkpoint(tmp_path: Path) -> None:
    """As how far an annealing of masks has come."""

    class Annealed(Watched):
        done = 0

        def on_train_batch_end(self, *_: Any) -> None:
            super().on_train_batch_end()
            self.done = len(self.stepped)

        def get_extra_state(self) -> Tensor:
            return torch.tensor(self.done)

        def set_extra_state(self, state: Tensor) -> None:
            self.done = int(state)

    run = trainer(tmp_path, EMA(0.9, 5), Checkpoints(), max_epochs=2, enable_checkpointing=True, num_sanity_val_steps=0)
    run.fit(Annealed(), loader(), loader())
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(tmp_path / "checkpoints" / name, weights_only=True)
        steps = {int(checkpoint[key]["_extra_state"]) for key in ("state_dict", "current_model_state")}
        assert steps == {checkpoint["global_step"]}


def test_weights_of_few_bits_have_no_average(tmp_path: Path) -> None:
    with pytest.raises(SegfolioError, match="precision is bf16-true; give bf16-mixed"):
        trainer(tmp_path, EMA(), precision="bf16-true").fit(Watched(), loader())


@pytest.mark.parametrize("arguments", [{"decay": 1.0}, {"decay": -0.1}, {"ramp": -1}], ids=str)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(SegfolioError, match="expected 0 <= decay < 1 and ramp >= 0"):
        EMA(**arguments)
