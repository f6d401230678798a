"""What networks that follow objects through a video are given and return, beside what `layers.prompting` says: SAM 2.

    attend(embedding, recalled) -> Embedding            of each object one of its own, which knows what is remembered
    answer(embedding, prompts, multimask) -> Reading    of an embedding that knows
    sight(reading, masks) -> Sighting                   the best mask of each object, and the pointer to it
    take(embedding, masks, image) -> Sighting           a mask that is given is what was found
    remember(embedding, sighting, image, prompted) -> Memory

`read` of an image is `answer` to what attends to no memory. All P objects are one batch; they may be of one frame or of
several. Where an object has less to remember than another, its places are `ABSENT`.
"""

from typing import NamedTuple

from torch import Tensor

from segfolio.layers.prompting import Embedding, PromptableNetwork, PromptInput, Reading

ABSENT = -1
"""The age of a memory that is none."""

NOTHING = -1024.0
"""The logits of a mask whose object is not there."""


class Sighting(NamedTuple):
    """What was found of P objects, each in one frame.

    Attributes:
        masks: `[P, h, w]` logits as `draw` gives them, `NOTHING` where the object is not there.
        iou: `[P]`, how well the network thinks that they fit.
        object_score: `[P]`, the logit that the object is there; it is, above 0.
        pointer: `[P, C]`, to the object as it looked there.
    """

    masks: Tensor
    iou: Tensor
    object_score: Tensor
    pointer: Tensor


class Memory(NamedTuple):
    """What is kept of P objects, each in one frame.

    Attributes:
        features: `[P, c, h, w]`, of the frame and the mask together.
        pointer: `[P, C]`, see `Sighting`.
    """

    features: Tensor
    pointer: Tensor


class Recalled(NamedTuple):
    """What P objects are remembered by, of T frames by features and of K frames by pointers.

    Attributes:
        features: `[P, T, c, h, w]`.
        ages: `[P, T]` int64, how many frames ago each was, counted in the direction in which the video is followed: 1
            to `memory_frames`; 0 for a frame that was prompted, whenever it was; `ABSENT` for none. Each object has at
            least one that is there.
        pointers: `[P, K, C]`; K may be 0.
        distances: `[P, K]` float, how many frames ago; NaN for none.
        furthest: the distance by which the others are divided: `pointer_frames`, or the frames of a video that has
            less, without the one that attends.
    """

    features: Tensor
    ages: Tensor
    pointers: Tensor
    distances: Tensor
    furthest: int


class TrackingNetwork(PromptableNetwork):
    """A network that is prompted and remembers.

    Attributes:
        memory_frames: how many of the last frames it attends to, beside those that were prompted.
        pointer_frames: how many of the last frames it has pointers to, beside those that were prompted.
    """

    memory_frames: int
    pointer_frames: int

    def attend(self, embedding: Embedding, recalled: Recalled | None) -> Embedding:
        """Embeddings of P images, or of one, to those of P objects that know what is `recalled` of them; of as many as
        there were, if that is None. They are read by `answer`, and by nothing else."""
        raise NotImplementedError

    def answer(self, embedding: Embedding, prompts: PromptInput, multimask: bool = True) -> Reading:
        """As `read`, of what `attend` made."""
        raise NotImplementedError

    def read(self, embedding: Embedding, prompts: PromptInput, multimask: bool = True) -> Reading:
        return self.answer(self.attend(embedding, None), prompts, multimask)

    def sight(self, reading: Reading, masks: Tensor | None = None) -> Sighting:
        """Of each answer the mask that the network thinks fits best.

        Args:
            masks: all of them, `[P, M, h, w]`, where they have been drawn.
        """
        raise NotImplementedError

    def take(self, embedding: Embedding, masks: Tensor, image: Tensor) -> Sighting:
        """Masks `[P, image_size, image_size]` bool over the padded square, with the image `[P]` of each, as found."""
        raise NotImplementedError

    def remember(self, embedding: Embedding, sighting: Sighting, image: Tensor, prompted: Tensor) -> Memory:
        """What to keep of P objects.

        Args:
            embedding: as `embed` gave it.
            image: `[P]`, which image of it each sighting is of.
            prompted: `[P]` bool, whether someone has said something of the object there, so that its mask is no guess.
        """
        raise NotImplementedError
