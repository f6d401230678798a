"""`EmbeddedImages`: images that are embedded once and asked about in their own pixels, any number of times."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from segfolio.data.image_space import IMAGENET_MEAN, IMAGENET_STD, RGB, ImageSpace
from segfolio.data.prompts import Prompts
from segfolio.data.sample import Size
from segfolio.layers.prompting import Embedding, PromptableNetwork, PromptedMasks, PromptInput, Reading


class EmbeddedImages:
    """The one way from prompts in an image's own pixels to a network's, and of its masks back.

    Args:
        network: in which mode it is, is for the caller to say.
        embedding: of images that `fitted` has made.
        sizes: height and width of each image in whose pixels it is asked, as a rule before that.
        seen: height and width of each as it was embedded; what the network's `fit` makes of `sizes` if not given.
    """

    def __init__(
        self,
        network: PromptableNetwork,
        embedding: Embedding,
        sizes: Sequence[Size],
        seen: Sequence[Size] | None = None,
    ) -> None:
        self.network, self.embedding, self.sizes = network, embedding, list(sizes)
        self.seen = [network.fit(*size) for size in sizes] if seen is None else list(seen)

    @classmethod
    def joined(cls, parts: Sequence["EmbeddedImages"]) -> "EmbeddedImages":
        """The images of several in one."""
        embedding = tuple(torch.cat(each) for each in zip(*(part.embedding for part in parts), strict=True))
        sizes, seen = ([size for part in parts for size in getattr(part, name)] for name in ("sizes", "seen"))
        return cls(parts[0].network, embedding, sizes, seen)

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, prompts: Prompts, image: Tensor, masks: Tensor | None = None, multimask: bool = True) -> Reading:
        """What is answered to P prompts in pixels of their images, see `PromptableNetwork.read`.

        Args:
            image: `[P]` int64, which image each is of.
            masks: `[P, h, w]`, logits of an earlier answer.
        """
        return self.network.read(self.embedding, self.of_network(prompts, image, masks), multimask)

    def ask(
        self, prompts: Prompts, image: Tensor, masks: Tensor | None = None, multimask: bool = True
    ) -> PromptedMasks:
        """As `read`, with the masks as the network draws them, `[P, M, h, w]`."""
        reading = self.read(prompts, image, masks, multimask)
        return PromptedMasks(self.network.draw(reading), reading.iou, reading.object_score)

    def enlarge(self, masks: Tensor, image: int) -> Tensor:
        """Mask logits `[N, h, w]` of an image, of any type, at its own size, `[N, H, W]`, as the original does it:
        enlarged to the padded square, cut to the image, resized; or at once, see `PromptableNetwork`."""
        if not self.network.through_square:
            return interpolate(masks[:, None], self.sizes[image], mode="bilinear")[:, 0]
        side = self.network.image_size
        height, width = self.seen[image]
        square = interpolate(masks[:, None], (side, side), mode="bilinear")[:, :, :height, :width]
        return interpolate(square, self.sizes[image], mode="bilinear")[:, 0]

    def squares(self, masks: Tensor, image: int) -> Tensor:
        """Masks `[N, H, W]` bool at the size of an image, over the padded square, `[N, side, side]` bool."""
        side = self.network.image_size
        height, width = self.seen[image]
        resized = interpolate(masks[:, None].float(), (height, width), mode="bilinear", antialias=True)[:, 0] >= 0.5
        return pad(resized, (0, side - width, 0, side - height))

    def of_network(self, prompts: Prompts, image: Tensor, masks: Tensor | None = None) -> PromptInput:
        """In pixels of what the network sees. The place of a pixel is scaled as the original does it, by its index
        and not by its centre; a box by its edges."""
        own = torch.tensor(self.sizes, dtype=torch.float32)
        seen = torch.tensor(self.seen, dtype=torch.float32)
        scale = (seen / own).flip(1).to(image.device)[image]  # [P, 2], of x and of y
        points = prompts.points if prompts.points is not None else scale.new_zeros(len(image), 0, 2)
        kinds = prompts.kinds if prompts.kinds is not None else image.new_zeros(len(image), 0)
        boxes = None if prompts.boxes is None else prompts.boxes * scale.repeat(1, 2)
        return PromptInput(image, (points - 0.5) * scale[:, None] + 0.5, kinds, boxes, masks)


class Embedder:
    """Embeds the images of an `ImageSpace`, as `families.Promptable` does it, for whoever has a network alone.

    Args:
        mean, std: of the network's input, per channel, in units of the images' value range.
        bicubic: see `embed`.
    """

    def __init__(
        self,
        network: PromptableNetwork,
        image_space: ImageSpace = RGB,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        bicubic: bool = False,
    ) -> None:
        self.network, self.image_space, (low, high) = network, image_space, image_space.value_range
        self.bicubic = bicubic
        self._mean = low + (high - low) * torch.tensor(mean)[:, None, None]
        self._std = (high - low) * torch.tensor(std)[:, None, None]

    def embedded(self, images: Tensor, sizes: Sequence[Size], own: Sequence[Size] | None = None) -> EmbeddedImages:
        """See `embed`."""
        return embed(self.network, self._normalize, images, sizes, own, self.bicubic)

    def _normalize(self, images: Tensor) -> Tensor:
        weight = next(self.network.parameters())
        return ((images - self._mean.to(images.device)) / self._std.to(images.device)).to(weight.dtype)


def embed(
    network: PromptableNetwork,
    normalize: Callable[[Tensor], Tensor],
    images: Tensor,
    sizes: Sequence[Size],
    own: Sequence[Size] | None = None,
    bicubic: bool = False,
) -> EmbeddedImages:
    """A dataset's images `[B, C, H, W]`, of `sizes` at the upper left each, ready to be asked about.

    Args:
        normalize: from the dataset's values to the network's.
        own: the sizes in whose pixels they are asked; `sizes` if not given.
        bicubic: resize so, and not bilinearly, as SAM 2's release does with the frames of videos.
    """
    embedding = network.embed(network_input(network, images, sizes, normalize, bicubic))
    seen = [network.fit(*size) for size in sizes]
    return EmbeddedImages(network, embedding, sizes if own is None else own, seen)


def fitted(network: PromptableNetwork, images: Tensor, sizes: Sequence[Size], bicubic: bool = False) -> Tensor:
    """Images `[B, C, H, W]` of the dataset's values, of which `sizes` are valid at the upper left, as `network.fit`
    has them, `[B, C, h, w]`: each resized by itself (bilinear or bicubic, antialiased, rounded to the type, as Pillow
    does), zero on the right and below where another is larger."""
    how = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
    resized = [
        resize(image[:, :height, :width], list(network.fit(height, width)), how, antialias=True)
        for image, (height, width) in zip(images, sizes, strict=True)
    ]
    height, width = (max(image.shape[d] for image in resized) for d in (1, 2))
    return torch.stack([pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in resized])


def network_input(
    network: PromptableNetwork,
    images: Tensor,
    sizes: Sequence[Size],
    normalize: Callable[[Tensor], Tensor],
    bicubic: bool = False,
) -> Tensor:
    """As `fitted`, normalised, and zero on the right and below of each image."""
    inputs = normalize(fitted(network, images, sizes, bicubic))
    for image, size in zip(inputs, sizes, strict=True):
        height, width = network.fit(*size)
        image[:, height:] = 0
        image[:, :, width:] = 0
    return inputs
