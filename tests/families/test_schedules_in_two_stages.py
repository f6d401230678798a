import pytest
import torch
from torch import nn

from segfolio.errors import SegfolioError
from segfolio.families.optimization import ParameterRules, apply_lr_factors, parameter_groups
from segfolio.families.schedules import TwoStageWarmupPoly


def optimizer() -> torch.optim.Optimizer:
    network = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    found = torch.optim.SGD(parameter_groups(network, ParameterRules(lr_factors={"backbone": 0.1})), lr=2.0)
    apply_lr_factors(found)
    return found


def rates(steps: int) -> list[tuple[float, float]]:
    """Of backbone and head."""
    sgd = optimizer()
    scheduler = TwoStageWarmupPoly(sgd, total_iters=20, later=["backbone"], warmup_iters=(2, 4), power=0.5)
    found = []
    for _ in range(steps):
        found.append((sgd.param_groups[0]["lr"], sgd.param_groups[1]["lr"]))
        sgd.step()
        scheduler.step()
    return found


def test_the_backbone_waits_and_each_part_decays_over_what_is_left_to_it():
    backbone, head = zip(*rates(22), strict=True)
    ramp = [0, 0.5]
    assert head == pytest.approx([2 * f for f in ramp] + [2 * max(0, 1 - (s - 2) / 18) ** 0.5 for s in range(2, 22)])
    ramp = [0, 0, 0, 0.25, 0.5, 0.75]
    assert backbone == pytest.approx(
        [0.2 * f for f in ramp] + [0.2 * max(0, 1 - (s - 6) / 14) ** 0.5 for s in range(6, 22)]
    )


def test_a_part_that_has_no_name_is_told_where_to_get_one():
    with pytest.raises(
        SegfolioError, match=r"later names 'norm', but .* backbone; name it in model.parameters.lr_factors"
    ):
        TwoStageWarmupPoly(optimizer(), total_iters=20, later=["norm"])
