from itertools import chain

import pytest

from segfolio.data.samplers import EvaluationSampler, TrainSampler
from segfolio.errors import SegfolioError


def steps(world_size: int, batch_size: int, accumulate: int = 1, epoch: int = 0, length: int = 30) -> list[list]:
    """The draws of each optimiser step, over all processes in order."""
    samplers = [TrainSampler(length, batch_size, 7, rank, world_size, accumulate) for rank in range(world_size)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    draws = [list(s) for s in samplers]
    forward = [[d for share in draws for d in share[i : i + batch_size]] for i in range(0, len(draws[0]), batch_size)]
    return [list(chain(*forward[i : i + accumulate])) for i in range(0, len(forward), accumulate)]


def test_order_and_keys_do_not_depend_on_the_number_of_processes():
    one = steps(1, 4)
    assert one == steps(2, 2) == steps(1, 2, accumulate=2) == steps(4, 1)
    assert len(one) == 7


def test_epochs_differ_and_repeat():
    assert steps(1, 4, epoch=0) != steps(1, 4, epoch=1)
    assert steps(1, 4, epoch=1) == steps(1, 4, epoch=1)


def test_an_epoch_draws_no_image_twice():
    indices = [d.image for step in steps(2, 3, length=30) for d in step]
    assert len(indices) == len(set(indices)) == 30


def test_every_draw_has_its_own_key():
    keys = [d.key for epoch in range(3) for step in steps(2, 2, epoch=epoch) for d in step]
    assert len(keys) == len(set(keys))


def test_a_split_smaller_than_one_step_is_named():
    with pytest.raises(SegfolioError, match=r"3 images, fewer than the 8 .* lower data.batch_size"):
        TrainSampler(3, 4, world_size=2)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_image_once(world_size):
    shares = [list(EvaluationSampler(7, rank, world_size)) for rank in range(world_size)]
    assert sorted(chain(*shares)) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("done", [0, 1, 6, 7])
def test_a_resumed_epoch_goes_on_behind_what_is_done(done):
    whole, resumed = TrainSampler(30, 4, 7), TrainSampler(30, 4, 7, resume=(2, done))
    for sampler in (whole, resumed):
        sampler.set_epoch(2)
    assert list(resumed) == list(whole)[4 * done :]
    assert len(resumed) == len(whole)
    for sampler in (whole, resumed):
        sampler.set_epoch(3)
    assert list(resumed) == list(whole)
