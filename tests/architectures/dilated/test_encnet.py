"""EncNet: equation 1 by loops, and the classes that are somewhere in the image."""

import torch

from segfolio.architectures.dilated.encnet import ContextEncoding, EncNet, Encoding


def test_encoding_is_equation_1() -> None:
    torch.manual_seed(0)
    layer = Encoding(4, 3).double()
    with torch.no_grad():
        layer.codewords.mul_(5)
        layer.scale.copy_(torch.tensor([-0.5, -1.0, -0.1]))
    x = torch.randn(2, 7, 4, dtype=torch.float64)
    expected = torch.zeros(2, 3, 4, dtype=torch.float64)
    for b in range(2):
        for i in range(7):
            residuals = [x[b, i] - code for code in layer.codewords]
            weights = [(scale * (r @ r)).exp() for scale, r in zip(layer.scale, residuals, strict=True)]
            for k in range(3):
                expected[b, k] += weights[k] / sum(weights) * residuals[k]
    torch.testing.assert_close(layer(x), expected)


def test_channels_are_weighted_by_one_to_two() -> None:
    torch.manual_seed(0)
    context = ContextEncoding(6, 4).eval()
    x = torch.rand(2, 6, 5, 7)
    weighted, encoding = context(x)
    factors = weighted / x
    assert encoding.shape == (2, 6)
    torch.testing.assert_close(factors, factors[..., :1, :1].expand_as(factors))
    assert (factors > 1).all()
    assert (factors < 2).all()


def test_presence_is_of_the_image_and_not_of_where_things_are() -> None:
    torch.manual_seed(0)
    context = ContextEncoding(6, 4).eval()
    x = torch.randn(1, 6, 5, 7)
    shuffled = x.flatten(2)[..., torch.randperm(35)].unflatten(2, (5, 7))
    torch.testing.assert_close(context(shuffled)[1], context(x)[1])


def test_auxiliary_logits_and_size() -> None:
    network = EncNet(5, **EncNet.tiny).train()
    logits, auxiliary = network(torch.randn(2, 3, 41, 33))
    assert {name: tuple(v.shape) for name, v in auxiliary.items()} == {"aux": (2, 5, 41, 33), "se": (2, 5)}
    assert logits.shape == (2, 5, 41, 33)
    assert network.eval()(torch.randn(2, 3, 41, 33)).auxiliary == {}
