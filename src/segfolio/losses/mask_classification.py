"""The criterion of mask classification (MaskFormer, arXiv 2107.06278, section 3; Mask2Former, 2112.01527, section 3.3).

Each segment of the truth is matched with the query that fits it best; classes are learned by all queries, masks by
the matched ones. All decoder layers are supervised alike, each with a matching of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate
from torch.utils.checkpoint import checkpoint
from torchvision.ops import generalized_box_iou_loss

from segfolio.errors import SegfolioError
from segfolio.losses.mask_matching import (
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    MaskLoss,
    MaskTarget,
    Weights,
    assign,
    at_points,
    box_costs,
    class_costs,
    corners,
    one_query_per_class,
    pair_costs,
    random_points,
)
from segfolio.losses.over_processes import over_processes
from segfolio.precision import full_float32

_CHUNK = 2_000_000  # points or pixels that are compared at a time
_TINY = 1e-6  # a divisor where nothing has weight
_UNCERTAIN = 0.75  # share of the points that are where the prediction is least certain

Layers = Sequence[tuple[Tensor, Tensor] | tuple[Tensor, Tensor | None, Tensor | None]]
"""Class logits, mask logits, of all layers or of the last alone, and perhaps boxes."""


class MaskCriterion(nn.Module):
    """What the family asks of a criterion: `forward(layers, targets, **dense)`, see `MaskOutput`, gives named losses.

    Attributes:
        names: of the losses.
        one_per_class: whether query k answers for class k.
        needs_boxes: whether targets need boxes.
        compares: the maps and vectors beside the queries that `forward` needs, as a network's `beside` names them.
        left_out: segments of the last batch, of all processes, that found all queries of their image taken.
    """

    names: tuple[str, ...]
    one_per_class: bool = False
    needs_boxes: bool = False
    compares: tuple[str, ...] = ()
    left_out: Tensor


class MaskClassificationLoss(MaskCriterion):
    """Class, mask and Dice losses of queries matched to segments.

    Everything is computed in full float32. What losses are divided by
    (segments for the masks, weights of the queries for the classes) is averaged over processes, so that the mean of
    their losses is the loss of the whole batch.

    Args:
        class_weight, mask_weight, dice_weight: of the losses and of the matching costs (Mask2Former: 2, 5, 5;
            MaskFormer: 1, 20, 1).
        no_object_weight: of the class "no object" in the cross-entropy.
        mask_loss: per pixel: `bce` (Mask2Former) or `focal` (MaskFormer).
        points: at which masks are compared; three quarters of them where the prediction is least certain, of
            `oversample` times as many drawn at random (Mask2Former). None compares whole masks at the truth's
            size, and for the costs at the prediction's (MaskFormer).
        oversample: see `points`.
        void: pixels that are not valid: `ignored`, they enter neither costs nor losses, nor does a point with one of
            them among the four pixels that it is read from; or `negative`, they are in no segment and learned as such
            (the released code of MaskFormer, Mask2Former and EoMT).
        matching: `bipartite`; or `fixed`, query k answers for class k (MaskFormer, section 4.3, N = K).
        box_weight, giou_weight: of the distance of boxes in parts of the image (L1), of generalised IoU (DETR: 5, 2),
            for networks whose queries have boxes.
        match_masks: whether masks enter the matching; in DETR they do not, and only the last layer has some.

    Without weights for masks and Dice, or for boxes, these are no part of the losses.

    Raises:
        SegfolioError: a weight below 0, fewer points than 1, `oversample` below 1.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
        mask_loss: MaskLoss = "bce",
        points: int | None = 12544,
        oversample: float = 3.0,
        matching: Literal["bipartite", "fixed"] = "bipartite",
        void: Literal["ignored", "negative"] = "ignored",
        box_weight: float = 0.0,
        giou_weight: float = 0.0,
        match_masks: bool = True,
    ) -> None:
        super().__init__()
        for name, value, bound in (
            ("class_weight", class_weight, 0),
            ("mask_weight", mask_weight, 0),
            ("dice_weight", dice_weight, 0),
            ("no_object_weight", no_object_weight, 0),
            ("box_weight", box_weight, 0),
            ("giou_weight", giou_weight, 0),
            ("points", points, 1),
            ("oversample", oversample, 1),
        ):
            if value is not None and value < bound:
                raise SegfolioError(f"{name} of MaskClassificationLoss is {value}, expected {bound} or more")
        self.weights = Weights(class_weight, mask_weight, dice_weight, box_weight, giou_weight)
        self.needs_boxes, self.needs_masks = box_weight + giou_weight > 0, mask_weight + dice_weight > 0
        self.names = ("class", *(("mask", "dice") * self.needs_masks), *(("box", "giou") * self.needs_boxes))
        self.match_masks, self.one_per_class = match_masks, matching == "fixed"
        self.no_object_weight, self.mask_loss = no_object_weight, mask_loss
        self.points, self.oversample, self.matching, self.void = points, oversample, matching, void
        self.left_out = torch.tensor(0.0)

    def forward(self, layers: Layers, targets: Sequence[MaskTarget]) -> dict[str, Tensor]:
        """The weighted losses `class`, and as there are weights `mask`, `dice`, `box` and `giou`, each summed over the
        layers that have them.

        Args:
            layers: of each decoder layer class logits `[B, Q, C + 1]`, the last of them "no object", and mask
                logits `[B, Q, h, w]`, of the last alone if need be; and boxes `[B, Q, 4]` if they are learned.
            targets: of each image; all of one size.

        Raises:
            SegfolioError: what `fixed` matching asks for does not hold; no boxes where they are learned.
        """
        if self.needs_boxes and any(len(layer) < 3 or layer[2] is None for layer in layers):
            raise SegfolioError(
                "box_weight or giou_weight of MaskClassificationLoss is not 0, but the network says no boxes; set both "
                "to 0, or take a network with boxes"
            )
        if self.void == "negative":
            targets = [replace(target, valid=None) for target in targets]
        images, queries, outputs = layers[0][0].shape
        counts = [len(t.labels) for t in targets]
        matched = sum(min(count, queries) for count in counts)
        with full_float32(layers[0][0].device):
            if self.matching == "fixed":
                match = one_query_per_class(targets, queries, outputs - 1).expand(len(layers), -1)
            else:
                match = self._match(layers, targets)
            class_weights = matched + self.no_object_weight * (images * queries - matched)
            sums, processes = over_processes([sum(counts), class_weights, sum(counts) - matched], match.device)
            pairs, weighed = sums[0].clamp_min(1) / processes, sums[1] / processes
            self.left_out = sums[2]
            image = torch.tensor([i for i, count in enumerate(counts) for _ in range(count)], dtype=torch.int64)
            image = image.to(match.device)
            labels = torch.cat([t.labels for t in targets])
            classes = self._class_loss(torch.stack([layer[0] for layer in layers]), labels, image, match)
            losses = {"class": self.weights.classes * classes / weighed.clamp_min(_TINY)}
            if self.needs_masks:
                masked = [(layer[1], row) for layer, row in zip(layers, match, strict=True) if layer[1] is not None]
                rows = torch.stack([row for _, row in masked])
                mask, dice = self._mask_losses([maps for maps, _ in masked], targets, image, rows)
                losses |= {"mask": self.weights.mask * mask / pairs, "dice": self.weights.dice * dice / pairs}
            if self.needs_boxes:
                box, giou = self._box_losses([layer[2] for layer in layers], targets, image, match)  # type: ignore[misc]
                losses |= {"box": self.weights.box * box / pairs, "giou": self.weights.giou * giou / pairs}
            return losses

    @torch.no_grad()
    def _match(self, layers: Layers, targets: Sequence[MaskTarget]) -> Tensor:
        """`[L, N]`, see `assign`. An image has the same points in all layers."""
        costs = []
        for i, target in enumerate(targets):
            of_layers = [class_costs(layer[0][i].float(), target.labels, self.weights) for layer in layers]
            if self.match_masks:
                of_layers = self._mask_costs(layers, target, i)
            if self.needs_boxes:
                assert target.boxes is not None
                for cost, (_, _, boxes) in zip(of_layers, layers, strict=True):  # type: ignore[misc]
                    cost += box_costs(boxes[i].float(), target.boxes, self.weights)  # type: ignore[index]
            costs.append(torch.stack(of_layers))
        return assign(torch.cat(costs, -1), [len(t.labels) for t in targets])

    def _mask_costs(self, layers: Layers, target: MaskTarget, image: int) -> list[Tensor]:
        """Costs of classes and masks of an image, of each layer."""
        first = layers[0][1]
        if first is None:
            raise SegfolioError(
                "match_masks of MaskClassificationLoss is true, but only the network's last layer has masks; set it to "
                "false, and give boxes weights"
            )
        size, device = first.shape[-2:], first.device
        points = None if self.points is None else random_points(1, self.points, device)

        def read(maps: Tensor) -> Tensor:
            if points is None:
                return interpolate(maps[:, None].float(), size).flatten(1)  # nearest
            # a CPU reads them as channels of one map two or three times more slowly
            return at_points(maps[:, None].float(), points.expand(len(maps), -1, -1))[:, 0]

        masks = read(target.masks)
        valid = None if target.valid is None else (read(~target.valid[None])[0] == 0).float()
        return [
            pair_costs(c[image].float(), read(m[image]), target.labels, masks, valid, self.weights, self.mask_loss)  # type: ignore[index]
            for c, m, *_ in layers
        ]

    def _box_losses(
        self, boxes: list[Tensor], targets: Sequence[MaskTarget], image: Tensor, match: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Distance and one less generalised IoU, the sums over the pairs of all layers."""
        rows = image * boxes[0].shape[1] + match.clamp_min(0)
        picked = torch.stack([b.float().flatten(0, 1).index_select(0, r) for b, r in zip(boxes, rows, strict=True)])
        truth = torch.cat([t.boxes for t in targets if t.boxes is not None]).expand_as(picked)
        seen = match >= 0
        overlap = generalized_box_iou_loss(corners(picked), corners(truth))
        return ((picked - truth).abs().sum(-1) * seen).sum(), (overlap * seen).sum()

    def _class_loss(self, logits: Tensor, labels: Tensor, image: Tensor, match: Tensor) -> Tensor:
        """The sum over all queries of all layers; logits are `[L, B, Q, C + 1]`."""
        layers, images, queries, outputs = logits.shape
        # one place more than queries: there -1 ends, the segments without a query
        truth = labels.new_full((layers, images, queries + 1), outputs - 1)
        truth[torch.arange(layers, device=labels.device)[:, None], image, match] = labels
        weight = torch.ones(outputs, device=logits.device)
        weight[-1] = self.no_object_weight
        return cross_entropy(logits.float().flatten(0, 2), truth[..., :-1].flatten(), weight, reduction="sum")

    def _mask_losses(
        self, logits: list[Tensor], targets: Sequence[MaskTarget], image: Tensor, match: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mask loss and Dice, the sums over the pairs of all layers."""
        counts = [len(t.labels) for t in targets]
        rows = image * logits[0].shape[1] + match.clamp_min(0)
        # layers are put together chunk by chunk: their gradients together would be held beside those of all logits
        picked = [m.flatten(0, 1).index_select(0, r) for m, r in zip(logits, rows, strict=True)]
        of_images = zip(*(maps.split(counts) for maps in picked), strict=True)
        drawn = targets[0].masks.shape[-2:].numel() if self.points is None else int(self.oversample * self.points)
        chunk = max(1, _CHUNK // (drawn * len(logits)))
        sums = []
        for target, queries_of, layers in zip(targets, match.T.split(counts), of_images, strict=True):
            void = None if target.valid is None else (~target.valid).float()[None, None]
            for masks, queries, *maps in zip(
                *(x.split(chunk) for x in (target.masks, queries_of, *layers)), strict=True
            ):
                points = None if self.points is None else self._draw(_stacked(maps), void)
                # computed again in the backward pass, which saves more memory than it takes time
                pairs = checkpoint(
                    self._compare, maps, masks, void, points, use_reentrant=False, preserve_rng_state=False
                )
                sums.append((pairs * (queries >= 0)).sum((1, 2)))
        mask, dice = torch.stack(sums).sum(0)
        return mask, dice

    @torch.no_grad()
    def _draw(self, maps: Tensor, void: Tensor | None) -> Tensor:
        """Points `[M, L, P, 2]` for logits `[M, L, h, w]`, void ones only if there are no others.

        A segment's points are chosen for each layer, from those that were drawn once.
        """
        assert self.points is not None
        uncertain = int(_UNCERTAIN * self.points)
        drawn = random_points(len(maps), int(self.oversample * self.points), maps.device)
        certainty = at_points(maps, drawn).abs_()
        if void is not None:
            hidden = at_points(void, drawn.flatten(0, 1)[None]).view(drawn.shape[:2]) > 0
            certainty.masked_fill_(hidden[:, None], torch.inf)
        # positive floats are in the order of their bits, and integers are compared faster
        chosen = certainty.view(torch.int32).topk(uncertain, largest=False, sorted=False).indices
        pool = torch.view_as_complex(drawn)[:, None].expand(-1, maps.shape[1], -1)
        chosen = torch.view_as_real(pool.gather(2, chosen))
        others = random_points(len(maps), self.points - uncertain, maps.device)
        return torch.cat([chosen, others[:, None].expand(-1, maps.shape[1], -1, -1)], 2)

    def _compare(self, layers: list[Tensor], masks: Tensor, void: Tensor | None, points: Tensor | None) -> Tensor:
        """Mask loss and Dice `[2, M, L]` of L logits `[M, h, w]` and masks `[M, H, W]`, at `points` `[M, L, P, 2]`."""
        maps, truth = _stacked(layers), masks[:, None].float()
        if points is None:
            logits = interpolate(maps, masks.shape[-2:], mode="bilinear").flatten(2)
            truth = truth.flatten(2).expand_as(logits)
            seen = None if void is None else void.flatten() == 0
        else:
            shape = points.shape[:3]
            logits = at_points(maps.flatten(0, 1)[:, None], points.flatten(0, 1)).view(shape)
            truth = at_points(truth, points.flatten(1, 2)).view(shape)
            seen = None if void is None else at_points(void, points.flatten(0, 2)[None]).view(shape) == 0

        loss = binary_cross_entropy_with_logits(logits, truth, reduction="none")
        probability = logits.sigmoid()
        if self.mask_loss == "focal":
            miss = probability + truth - 2 * probability * truth
            loss = (FOCAL_ALPHA * truth + (1 - FOCAL_ALPHA) * (1 - truth)) * miss**FOCAL_GAMMA * loss
        number: int | Tensor = logits.shape[-1]
        if seen is not None:
            loss, probability, truth = loss * seen, probability * seen, truth * seen
            number = seen.sum(-1).clamp_min(1)
        overlap, union = (probability * truth).sum(-1), probability.sum(-1) + truth.sum(-1)
        return torch.stack([loss.sum(-1) / number, 1 - (2 * overlap + 1) / (union + 1)])


def _stacked(layers: Sequence[Tensor]) -> Tensor:
    """L of `[M, h, w]` to `[M, L, h, w]`, float32."""
    return torch.stack(list(layers), 1).float()
