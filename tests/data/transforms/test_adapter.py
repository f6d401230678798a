"""TorchvisionV2: what torchvision pads, and what it may not do."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from segfolio.data.transforms import TorchvisionV2
from segfolio.errors import SegfolioError
from tests.data.transforms.helpers import blocks, semantic


def test_torchvision_pads_with_ignore_index_and_leaves_torchs_generator() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    pad = TorchvisionV2(v2.Pad((3, 2)))
    for ignore_index in (255, 65535):
        sample = blocks((40, 60), ignore_index=ignore_index)
        ids = semantic(pad(sample, np.random.default_rng(0)))
        np.testing.assert_array_equal(ids, np.pad(semantic(sample), ((2, 2), (3, 3)), constant_values=ignore_index))
        assert ids.dtype == semantic(sample).dtype
    assert torch.equal(torch.get_rng_state(), state)


def test_what_torchvision_may_not_do_is_an_error() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(SegfolioError, match=r"ToDtype made torch.float32 of blocks; images stay torch.uint8"):
        TorchvisionV2(v2.ToDtype(torch.float32, scale=True))(blocks(), rng)
    with pytest.raises(SegfolioError, match="Pad pads masks with a value of its own; leave `fill`"):
        TorchvisionV2(v2.Pad(3, fill=255))(blocks(), rng)
