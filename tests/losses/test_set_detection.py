"""What a set of queries loses against objects, of many at once."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from segfolio.losses.mask_matching import MaskTarget, corners, iou
from segfolio.losses.set_detection import SetLayer, SetWeights, set_losses
from segfolio.speed.measure import peak_bytes


def test_the_overlap_of_pairs_is_that_of_all_with_all_on_its_diagonal() -> None:
    torch.manual_seed(0)
    found, wanted = (corners(torch.rand(50, 4) / 2 + 0.1) for _ in range(2))
    expected = box_iou(found, wanted).diagonal()
    assert expected.std() > 0.1
    torch.testing.assert_close(iou(found, wanted), expected)


def test_many_matched_queries_are_learned_in_little_memory() -> None:
    """7,000 pairs: boxes of all compared with those of all would take 1.4 GB more."""
    torch.manual_seed(0)
    groups, objects, classes = 10, 700, 2
    queries = groups * objects
    layer = SetLayer(
        torch.randn(1, queries, classes),
        torch.rand(1, queries, 4) / 2 + 0.1,
        torch.randn(1, queries, 4),
        torch.randn(1, 4, 2, 2),
    )
    target = MaskTarget(
        torch.randint(classes, (objects,)),
        torch.rand(objects, 8, 8) > 0.5,
        boxes=torch.rand(objects, 4) / 2 + 0.1,
    )
    found = dict[str, Tensor]()
    number = torch.tensor(float(queries))
    held = peak_bytes(lambda: found.update(set_losses([layer], [target], groups, 4, SetWeights(), number)))
    assert all(loss.isfinite() and loss > 0 for loss in found.values())
    assert held < 6e8
