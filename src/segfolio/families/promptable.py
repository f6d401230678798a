"""Promptable segmentation: a network that is asked for an object by clicks, boxes and masks (SAM and its line)."""

from collections.abc import Sequence

from torch import Tensor

from segfolio.data.sample import Size
from segfolio.families.base import Family
from segfolio.inference.prompting import EmbeddedImages, fitted
from segfolio.layers.prompting import PromptableNetwork


class Promptable(Family):
    """Networks with `embed`, `read` and `draw`; `layers.prompting` says all of it.

    Images come as they are stored, or cropped; the family resizes them to what the network sees. They may be padded
    (`data.pad_batches`). Prompts are in pixels of the sample, answers at the image's original size.

    The arguments, by name, are those of `Family`.
    """

    network: PromptableNetwork
    takes_padding = True
    measured_by = "prompts"

    def embedded(self, images: Tensor, sizes: Sequence[Size]) -> EmbeddedImages:
        """The dataset's images `[B, C, H, W]`, of their own `sizes` at the upper left each, ready to be asked about."""
        small = fitted(self.network, images, sizes)
        inputs = self.normalize(small)
        for image, size in zip(inputs, sizes, strict=True):
            height, width = self.network.fit(*size)
            image[:, height:] = 0
            image[:, :, width:] = 0
        return EmbeddedImages(self.network, self.network.embed(inputs), sizes)
