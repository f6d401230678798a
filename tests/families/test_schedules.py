import math
import warnings
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from segfolio.data.datasets import Shapes
from segfolio.errors import SegfolioError
from segfolio.families.schedules import TwoStageWarmupPoly, WarmupCosine, WarmupPoly, WarmupStep
from tests.families.test_per_pixel import family, shapes, trainer


def rates(steps: int, schedule: type = WarmupPoly, **arguments) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2.0)
    scheduler = schedule(optimizer, **arguments)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_without_warm_up_it_is_torch_s_polynomial():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2.0)
    reference = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=10, power=0.9)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert rates(12, total_iters=10) == pytest.approx(expected)


def test_the_warm_up_multiplies_the_decay():
    found = rates(5, total_iters=100, warmup_iters=4, warmup_factor=0.1)
    ramp = [0.1, 0.325, 0.55, 0.775, 1.0]
    assert found == pytest.approx([2 * f * (1 - i / 100) ** 0.9 for i, f in enumerate(ramp)])


def test_biases_and_momentum_may_warm_up_from_values_of_their_own():
    """YOLO's: biases from 0.1 and momentum from 0.8, both linearly, to what they are afterwards."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(()))], "biases": biases} for biases in (False, True)]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    warm_up = {"warmup_iters": 4, "warmup_factor": 0.0, "warmup_bias_lr": 0.1, "warmup_momentum": 0.8}
    scheduler = WarmupPoly(optimizer, total_iters=10, power=1.0, **warm_up)
    found = []
    for _ in range(7):
        found.append([*(group["lr"] for group in optimizer.param_groups), optimizer.param_groups[0]["momentum"]])
        optimizer.step()
        scheduler.step()
    for step, (lr, bias_lr, momentum) in enumerate(found):
        ramp, decayed = min(1.0, step / 4), 0.01 * (1 - step / 10)
        assert lr == pytest.approx(decayed * ramp)
        assert bias_lr == pytest.approx(0.1 * (1 - ramp) + decayed * ramp)
        assert momentum == pytest.approx(0.8 + 0.1 * ramp)


@pytest.mark.parametrize(
    ("optimizer", "arguments", "said"),
    [
        (torch.optim.SGD, {"warmup_bias_lr": 0.1}, "biases are not in groups of their own; give model.parameters.bia"),
        (torch.optim.SGD, {"warmup_momentum": 5.0}, "warmup_momentum is 5; give less than 1"),
        (torch.optim.AdamW, {"warmup_momentum": 0.8}, "warmup_momentum is 0.8, but AdamW has no momentum"),
    ],
)
def test_a_warm_up_of_what_there_is_not_is_refused(optimizer, arguments, said):
    with pytest.raises(SegfolioError, match=said):
        WarmupPoly(optimizer([torch.nn.Parameter(torch.zeros(()))], lr=0.1), total_iters=9, **arguments)


def test_the_decay_ends_at_min_lr_in_every_group():
    """Segmenter: `(lr - 1e-5) (1 - i / max) ** 0.9 + 1e-5`, here with 0.1."""
    expected = [1.9 * (1 - i / 4) ** 0.9 + 0.1 for i in range(4)] + [0.1, 0.1]
    assert rates(6, total_iters=4, min_lr=0.1) == pytest.approx(expected)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": lr} for lr in (1.0, 10.0)]
    optimizer = torch.optim.SGD(groups)
    scheduler = WarmupPoly(optimizer, total_iters=2, power=1.0, min_lr=0.5)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.75, 5.25])


def test_the_decay_changes_every_so_many_steps_and_the_warm_up_each():
    """Ten steps in kazuto1011's DeepLab v2; by epoch, here of 3 steps, in DLA: `lr (1 - epoch / epochs) ** 0.9`."""
    by_epoch = [2 * (1 - epoch / 2) ** 0.9 for epoch in (0, 0, 0, 1, 1, 1, 2)]
    assert rates(7, total_iters=6, every=3) == pytest.approx(by_epoch)
    ramp = [0.5, 0.75, 1.0, 1.0]
    found = rates(4, total_iters=30, every=10, warmup_iters=2, warmup_factor=0.5)
    assert found == pytest.approx([2 * factor for factor in ramp])
    assert rates(21, total_iters=30, every=10, power=1.0)[9::10] == pytest.approx([2, 4 / 3])


def test_steps_and_their_warm_up():
    found = rates(8, WarmupStep, milestones=[7, 5], gamma=0.1, warmup_iters=4, warmup_factor=0.2)
    assert found == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 0.2, 0.2, 0.02])
    assert rates(3, WarmupStep, milestones=[2], warmup_iters=0) == pytest.approx([2.0, 2.0, 0.2])


def test_half_a_cosine_to_a_part_of_each_group_s_rate():
    """A tenth in SAM 2's release, at the end and from there on; half the way it is in the middle."""
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)] + [0.1, 0.1]
    assert rates(6, WarmupCosine, total_iters=4, part=0.1) == pytest.approx([2 * factor for factor in expected])
    assert expected[2] == pytest.approx(0.55)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": lr} for lr in (1.0, 10.0)]
    optimizer = torch.optim.SGD(groups)
    scheduler = WarmupCosine(optimizer, total_iters=2, part=0.5)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 5.0])


@pytest.mark.parametrize(
    ("schedule", "arguments", "said"),
    [
        (WarmupPoly, {"total_iters": 0}, "WarmupPoly: total_iters is 0; give at least 1"),
        (WarmupPoly, {"total_iters": 9, "every": 0}, "every is 0; give at least 1"),
        (WarmupPoly, {"total_iters": 9, "power": -1.0}, "power is -1.0; give at least 0"),
        (WarmupPoly, {"total_iters": 9, "min_lr": 3.0}, "min_lr is 3, above the learning rate of 2 that decays to it"),
        (WarmupStep, {"milestones": [9], "gamma": -0.1}, "WarmupStep: gamma is -0.1; give at least 0"),
        (WarmupStep, {"milestones": [9], "warmup_iters": -1}, "warmup_iters is -1"),
        (WarmupCosine, {"total_iters": 0}, "WarmupCosine: total_iters is 0; give at least 1"),
        (WarmupCosine, {"total_iters": 9, "part": -0.1}, "part is -0.1; give at least 0"),
        (TwoStageWarmupPoly, {"total_iters": 1500, "later": []}, "total_iters is 1500; give at least 1501"),
    ],
)
def test_numbers_that_are_out_of_range_are_refused(schedule, arguments, said):
    with pytest.raises(SegfolioError, match=said):
        rates(1, schedule, **arguments)


def said_of(total: int, schedule: type = WarmupPoly, ckpt_path=None, **arguments) -> list[str]:
    """Warnings of a fit whose schedule is of `total` steps."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model = family(labels=Shapes.labels, scheduler=partial(schedule, total_iters=total))
        trainer(limit_val_batches=0, **arguments).fit(model, shapes(), ckpt_path=ckpt_path)
    return [str(warning.message) for warning in found if "total_iters" in str(warning.message)]


@pytest.mark.parametrize("schedule", [WarmupPoly, torch.optim.lr_scheduler.PolynomialLR])
def test_a_schedule_of_other_steps_than_the_trainer_s_is_told(schedule):
    said = "the learning rate is planned for 30 steps (total_iters of model.scheduler), but the trainer ends after 4; "
    assert said_of(30, schedule) == [said + "give both the same number"]


def test_a_schedule_of_as_many_steps_or_of_a_warm_up_is_not():
    assert said_of(4, max_steps=-1, max_epochs=2) == []  # of two batches
    assert said_of(30, torch.optim.lr_scheduler.LinearLR) == []


def test_a_resumed_run_has_the_same_steps(tmp_path):
    checkpoints = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1)
    assert said_of(4, enable_checkpointing=True, callbacks=[checkpoints]) == []
    assert said_of(4, ckpt_path=tmp_path / "step=2.ckpt") == []


def test_a_cosine_rises_from_nothing_and_falls_to_its_end():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2.0)
    schedule, rates = WarmupCosine(optimizer, total_iters=12, warmup_iters=4, min_lr=0.1), []
    for _ in range(14):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    assert rates[8] == pytest.approx(0.1 + 1.9 / 2)
    assert rates[12:] == pytest.approx([0.1, 0.1])
    with pytest.raises(SegfolioError, match="WarmupCosine: total_iters is 4; give at least 5"):
        WarmupCosine(optimizer, total_iters=4, warmup_iters=4)


def test_the_state_goes_on_where_it_was():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2.0)
    one = WarmupPoly(optimizer, total_iters=10, warmup_iters=3)
    for _ in range(5):
        optimizer.step()
        one.step()
    state = torch.load(buffer(one.state_dict()), weights_only=True)
    two = WarmupPoly(torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2.0), total_iters=10, warmup_iters=3)
    two.load_state_dict(state)
    assert two.last_epoch == 5


def buffer(content):
    import io

    stream = io.BytesIO()
    torch.save(content, stream)
    stream.seek(0)
    return stream
