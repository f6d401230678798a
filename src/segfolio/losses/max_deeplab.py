"""The criterion of MaX-DeepLab (Wang et al., 2021, arXiv 2012.00759, sections 3.1 and 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, logsigmoid, normalize

from segfolio.errors import SegfolioError
from segfolio.losses.mask_classification import Layers, MaskCriterion
from segfolio.losses.mask_matching import MaskTarget, assign
from segfolio.losses.over_processes import over_processes
from segfolio.precision import full_float32

_LEAST = 1e-5  # weight of a slot
_NEVER = -1e4  # the logit of a segment without a pixel
_TINY = 1e-5  # beside what a Dice coefficient is divided by


class MaXDeepLabLoss(MaskCriterion):
    """Losses of slots whose masks exclude each other: the sigmoid of a mask's logit is its share of the pixel.

    A pair of slot and segment is as good as its mask's Dice coefficient times its class's probability, as a segment is
    in PQ; slots are matched so that the sum is largest. The PQ-style loss raises each of the two weighted by the other,
    which is held, and lets slots without a segment say "no object", weighted by how much of them is void. Beside it
    each pixel is to choose the slot of its segment, and have an embedding like the mean of its segment's, and a class.
    Masks are compared at the size of the prediction. Pixels that do not count, void and padding, are left out, as in
    the originals.

    As in the release (deeplab2, google-research), the mask's part of the PQ-style loss is divided by the slots, and all
    are means over images. There, embeddings are learned by pixels of things alone; here, as in the paper, by all.

    Args:
        pq_weight, mask_id_weight, instance_weight, semantic_weight: of the losses.
        alpha: of slots with a segment, 1 - alpha of those without.
        temperature: of embeddings.

    Raises:
        SegfolioError: a weight below 0, `alpha` outside 0 to 1, no temperature.
    """

    names = ("class", "dice", "mask_id", "instance", "semantic")
    compares = ("semantic", "features")

    def __init__(
        self,
        pq_weight: float = 3.0,
        mask_id_weight: float = 0.3,
        instance_weight: float = 1.0,
        semantic_weight: float = 1.0,
        alpha: float = 0.75,
        temperature: float = 0.3,
    ) -> None:
        super().__init__()
        weights = (pq_weight, mask_id_weight, instance_weight, semantic_weight)
        if min(weights) < 0 or not 0 <= alpha <= 1 or temperature <= 0:
            raise SegfolioError(
                f"MaXDeepLabLoss: weights {', '.join(f'{w:g}' for w in weights)}, alpha {alpha:g}, temperature "
                f"{temperature:g}; give weights of 0 or more, an alpha from 0 to 1, and a temperature above 0"
            )
        self.pq, self.mask_id, self.instance, self.semantic = weights
        self.alpha, self.temperature = alpha, temperature
        self.left_out = torch.tensor(0.0)

    def forward(
        self,
        layers: Layers,
        targets: Sequence[MaskTarget],
        semantic: Tensor | None = None,
        features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The weighted losses `class`, `dice`, `mask_id`, `instance` and `semantic`.

        Args:
            layers: of the last one class logits `[B, N, C + 1]`, the last of them "no object", and mask logits
                `[B, N, h, w]`.
            targets: of each image; all of one size.
            semantic: class logits of pixels, `[B, C, h, w]`.
            features: embeddings of pixels, of unit length, `[B, E, h, w]`.

        Raises:
            SegfolioError: a network without semantic logits and embeddings.
        """
        if semantic is None or features is None:
            raise SegfolioError(
                "MaXDeepLabLoss needs a network with semantic logits and embeddings of pixels, as MaXDeepLab is; for "
                "another take MaskClassificationLoss"
            )
        classes, masks, *_ = layers[-1]
        assert masks is not None
        with full_float32(classes.device):
            of_images = zip(classes.float(), masks.float(), semantic.float(), features.float(), targets, strict=True)
            each = [self._of_image(*image) for image in of_images]
        left_out = sum(max(0, len(t.labels) - classes.shape[1]) for t in targets)
        self.left_out = over_processes([left_out], classes.device)[0][0]
        weights = (self.pq, self.pq, self.mask_id, self.instance, self.semantic)
        means = torch.stack(each).mean(0)
        return {name: weight * mean for name, weight, mean in zip(self.names, weights, means, strict=True)}

    def _of_image(
        self, classes: Tensor, masks: Tensor, semantic: Tensor, features: Tensor, target: MaskTarget
    ) -> Tensor:
        """The five losses `[5]` without their weights."""
        size, labels = masks.shape[-2:], target.labels
        truth = interpolate(target.masks[:, None].float(), size)[:, 0].flatten(1)  # nearest
        counts = truth.sum(0).clamp(max=1)
        if target.valid is not None:
            counts = counts * interpolate(target.valid[None, None].float(), size).flatten()
        truth, log = truth * counts, logsigmoid(masks.flatten(1))
        share = log.exp() * counts
        dice = 2 * truth @ share.T / (truth.sum(1)[:, None] + share.sum(1) + _TINY)  # [N, slots]
        probability = classes.softmax(-1)
        likeness = (dice * probability[:, labels].T).detach()
        match = assign(-likeness.T[None], [len(labels)])[0]
        found = match >= 0
        slots, matched = match[found], labels[found]

        own_dice, own_class = dice[found, slots], probability[slots, matched].detach()
        mask_loss = self.alpha * ((1 - own_dice) * own_class.clamp_min(_LEAST)).sum() / len(classes)
        wanted = labels.new_full((len(classes),), classes.shape[1] - 1)
        wanted[slots] = matched
        void = (log.exp() * (1 - counts)).sum(1) / (log.exp().sum(1) + _TINY)
        weight = (1 - self.alpha) * void.detach().clamp_min(_LEAST)
        weight[slots] = self.alpha * own_dice.detach().clamp_min(_LEAST)
        class_loss = (weight * cross_entropy(classes, wanted, reduction="none")).mean()

        seen, total = truth[found], counts.sum().clamp_min(1)
        mask_id = -(seen * log[slots]).sum() / total
        pixels = features.flatten(1)
        centres = normalize(truth @ pixels.T / truth.sum(1, keepdim=True).clamp_min(1), dim=1)
        alike = (centres @ pixels / self.temperature).masked_fill(truth.sum(1, keepdim=True) == 0, _NEVER)
        instance = -(truth * alike.log_softmax(0)).sum() / total
        scores = semantic.flatten(1).log_softmax(0)
        of_class = -(truth * scores[labels]).sum() / total
        return torch.stack([class_loss, mask_loss, mask_id, instance, of_class])
