import pytest
import torch

from segfolio.families.schedules import WarmupPoly


def rates(steps: int, **arguments) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2.0)
    scheduler = WarmupPoly(optimizer, **arguments)
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
