from types import SimpleNamespace

import pytest

from segfolio.callbacks.mask_annealing import MaskAnnealing
from segfolio.errors import SegfolioError


def test_blocks_go_from_masked_to_plain_one_after_the_other():
    annealing = MaskAnnealing(starts=[10, 20], ends=[20, 40])
    assert annealing.probabilities(0) == annealing.probabilities(10) == [1, 1]
    assert annealing.probabilities(15) == pytest.approx([0.5**0.9, 1])
    assert annealing.probabilities(25) == pytest.approx([0, 0.75**0.9])
    assert annealing.probabilities(40) == annealing.probabilities(99) == [0, 0]


def test_the_network_gets_them_before_each_step():
    annealing = MaskAnnealing([0, 2], [2, 4], power=1)
    module = SimpleNamespace(network=SimpleNamespace(mask_probabilities=[1.0, 1.0]))
    annealing.on_train_start(SimpleNamespace(), module)
    annealing.on_train_batch_start(SimpleNamespace(global_step=3), module, None, 3)
    assert module.network.mask_probabilities == [0, 0.5]


@pytest.mark.parametrize(("starts", "ends"), [([1], [2, 3]), ([5], [5])])
def test_spans_that_are_none_are_refused(starts, ends):
    with pytest.raises(SegfolioError, match="give each start its later end"):
        MaskAnnealing(starts, ends)


def test_a_network_of_other_blocks_is_refused_before_training():
    with pytest.raises(SegfolioError, match="has 1 starts, but the network has 0 blocks with masks"):
        MaskAnnealing([0], [1]).on_train_start(SimpleNamespace(), SimpleNamespace(network=SimpleNamespace()))
