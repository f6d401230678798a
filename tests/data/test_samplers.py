from itertools import chain

import pytest

from segfolio.data.samplers import EvaluationSampler, TrainSampler
from segfolio.errors import SegfolioError


def steps(world_size: int, accumulate: int = 1, batch_size: int = 4, epoch: int = 0, length: int = 30) -> list[list]:
    """The draws of each optimiser step, over all processes in order."""
    samplers = [TrainSampler(length, batch_size, 7, rank, world_size, accumulate) for rank in range(world_size)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    draws, share = [list(s) for s in samplers], samplers[0].share
    assert share * world_size * accumulate == batch_size
    forward = [[d for share_ in draws for d in share_[i : i + share]] for i in range(0, len(draws[0]), share)]
    return [list(chain(*forward[i : i + accumulate])) for i in range(0, len(forward), accumulate)]


def test_order_and_keys_do_not_depend_on_the_number_of_processes():
    one = steps(1)
    assert one == steps(2) == steps(1, accumulate=2) == steps(2, accumulate=2) == steps(4)
    assert len(one) == 7


def test_epochs_differ_and_repeat():
    assert steps(1, epoch=0) != steps(1, epoch=1)
    assert steps(1, epoch=1) == steps(1, epoch=1)


def test_an_epoch_draws_no_image_twice():
    indices = [d.clip for step in steps(2, batch_size=6) for d in step]
    assert len(indices) == len(set(indices)) == 30


def test_every_draw_has_its_own_key():
    keys = [d.key for epoch in range(3) for step in steps(2, epoch=epoch) for d in step]
    assert len(keys) == len(set(keys))


def test_a_split_smaller_than_one_step_is_named():
    with pytest.raises(SegfolioError, match=r"3 images or clips, fewer than the 8 of one step; lower data.batch_size"):
        TrainSampler(3, 8, world_size=2)


@pytest.mark.parametrize(("world_size", "accumulate"), [(3, 1), (2, 3), (8, 4)])
def test_a_batch_that_processes_and_passes_do_not_divide_is_refused_with_its_divisors(world_size, accumulate):
    says = rf"batch_size 16 .* which {world_size} x {accumulate} parts .* is one of 1, 2, 4, 8, 16, or another"
    with pytest.raises(SegfolioError, match=says):
        TrainSampler(30, 16, world_size=world_size, accumulate=accumulate)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(SegfolioError, match=r"data\.batch_size is 0; give at least"):
        TrainSampler(30, 0)


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
