"""What a promptable network sees of an image, against transformers' processor."""

import pytest
import torch
from torch import Tensor
from transformers import SamImageProcessor

from segfolio.data.sample import to_image
from segfolio.inference.prompting import Embedder
from segfolio.layers.prompting import Embedding
from tests.inference.prompted import Discs
from tests.inference.sam_pair import picture


class Seeing(Discs):
    """Keeps what it sees."""

    image_size = 256
    seen: Tensor

    def embed(self, images: Tensor) -> Embedding:
        self.seen = images
        return super().embed(images)


@pytest.mark.parametrize("size", [(256, 256), (480, 641), (641, 480), (37, 201), (129, 128)])
def test_an_image_is_prepared_as_transformers_does_it(size: tuple[int, int]) -> None:
    image, network = picture(*size), Seeing()
    side = {"height": 256, "width": 256}
    theirs = SamImageProcessor(size={"longest_edge": 256}, pad_size=side)(image, return_tensors="pt")
    Embedder(network).embedded(to_image(image).as_subclass(Tensor)[None], [size])
    height, width = network.seen.shape[-2:]
    assert (height, width) == tuple(theirs["reshaped_input_sizes"][0].tolist())
    torch.testing.assert_close(network.seen[0], theirs["pixel_values"][0, :, :height, :width], rtol=0, atol=1e-5)
    assert not theirs["pixel_values"][0, :, height:].any()
