"""OCRNet: region means and attention by loops, and HRNet's features."""

import pytest
import torch

from segfolio.architectures.dilated.ocrnet import ObjectContext, OCRHRNet, OCRNet, region_means
from segfolio.errors import SegfolioError


def test_a_regions_mean_is_weighted_by_its_probability_over_the_pixels() -> None:
    torch.manual_seed(0)
    features, regions = torch.randn(2, 4, 3, 5), torch.randn(2, 6, 3, 5)
    found = region_means(features, regions)
    for b in range(2):
        for k in range(6):
            weights = regions[b, k].exp() / regions[b, k].exp().sum()
            torch.testing.assert_close(found[b, :, k], (features[b] * weights).sum((1, 2)))


def test_every_pixel_attends_to_the_regions() -> None:
    """Equations 3 and 4, pixel by pixel."""
    torch.manual_seed(0)
    context = ObjectContext(8, 4).eval()
    features, regions = torch.randn(1, 8, 3, 5), torch.randn(1, 6, 3, 5)
    objects = region_means(features, regions)[..., None]
    query, key, value = context.query(features)[0], context.key(objects)[0, ..., 0], context.value(objects)[0, ..., 0]
    attended = torch.zeros(1, 4, 3, 5)
    for row in range(3):
        for column in range(5):
            weights = torch.stack([(query[:, row, column] @ key[:, k] / 4**0.5).exp() for k in range(6)])
            attended[0, :, row, column] = value @ (weights / weights.sum())
    expected = context.fuse(torch.cat([context.output(attended), features], 1))
    torch.testing.assert_close(context(features, regions), expected)


@pytest.mark.parametrize("cls", [OCRNet, OCRHRNet])
def test_regions_are_supervised_in_training_alone(cls: type[OCRNet] | type[OCRHRNet]) -> None:
    torch.manual_seed(0)
    network = cls(5, **cls.tiny)
    images = torch.randn(2, 3, 41, 65)
    logits, auxiliary = network.train()(images)
    assert logits.shape == auxiliary["regions"].shape == (2, 5, 41, 65)
    assert network.eval()(images).auxiliary == {}


def test_parameters_on_hrnet_w48() -> None:
    """Heads counted by hand from `seg_hrnet_ocr.py`, without the biases ahead of normalisation."""
    with torch.device("meta"):
        network = OCRHRNet(150)
    assert network.backbone.feature_info.channels() == [48, 96, 192, 384]
    regions, reduce = 720 * 720 + 2 * 720 + 721 * 150, 9 * 720 * 512 + 2 * 512
    keys = 512 * 256 + 2 * 256 + 256 * 256 + 2 * 256
    context = 2 * keys + 2 * 512 * 256 + 2 * 256 + 2 * 512 + 1024 * 512 + 2 * 512
    own = [network.regions, network.reduce, network.context, network.head]
    assert [sum(p.numel() for p in m.parameters()) for m in own] == [regions, reduce, context, 513 * 150]


def test_a_resnet_is_refused() -> None:
    with pytest.raises(SegfolioError, match="backbone resnet50 is no HRNet; take OCRNet"):
        OCRHRNet(5, backbone="resnet50")
