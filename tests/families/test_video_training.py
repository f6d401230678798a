"""How `Video` learns: what is remembered, where something is learned, and that a clip is."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segfolio.architectures.promptable.sam import SAM
from segfolio.architectures.promptable.sam2 import SAM2
from segfolio.data.batches import Augmented, collate
from segfolio.data.clip_prompts import ClipPlan, ClipPrompts
from segfolio.data.clips import ClipFrames
from segfolio.data.datasets import MovingShapes, Shapes
from segfolio.data.module import DataModule
from segfolio.data.prompts import NOT_OBJECT, OBJECT, PADDING, Prompts
from segfolio.data.sample import Batch
from segfolio.data.samplers import Draw
from segfolio.errors import SegfolioError
from segfolio.families import Promptable, Video
from segfolio.families.clip_rounds import Clips
from segfolio.families.optimization import ParameterRules
from segfolio.families.prompt_rounds import click_at_error
from segfolio.inference.track import Tracker
from segfolio.layers.prompting import PromptInput
from segfolio.losses.promptable import PromptLoss
from segfolio.metrics.video import VideoMetric
from tests.data.test_clip_prompts import Nothing, frame
from tests.families.test_detection import trainer

SMALL: dict[str, Any] = {
    **SAM2.tiny,
    **{"width": 16, "stages": (1, 1, 1, 1), "global_blocks": (2,), "windows": (4, 4, 4, 2), "background": 4},
    **{"memory_layers": 1, "memory_mlp": 64, "memory_dropout": 0.0, "image_size": 64},
}
TINY = partial(SAM2, **SMALL)
FEW = ClipPrompts(max_objects=2, clicks=2)
PLANS = {
    "mask": ClipPlan({0: "mask"}, frozenset()),
    "masks": ClipPlan({0: "mask", 2: "mask"}, frozenset()),
    "point": ClipPlan({0: "point"}, frozenset({0})),
    "box": ClipPlan({0: "box"}, frozenset({0, 2})),
    "both": ClipPlan({0: "box", 1: "point"}, frozenset({0, 1})),
}


class Planned(ClipPrompts):
    """Asks as it is told."""

    plans: ClipPlan

    def plan(self, seed: int, step: int, frames: int) -> ClipPlan:
        return self.plans


def planned(kind: str, **arguments: Any) -> Planned:
    prompts = Planned(**{"max_objects": 2, "clicks": 2, **arguments})
    object.__setattr__(prompts, "plans", PLANS[kind])
    return prompts


def family(prompts: ClipPrompts = FEW, network: Any = TINY, lr: float = 1e-3, **arguments: Any) -> Video:
    torch.manual_seed(0)
    return Video(Shapes.labels, network, prompts=prompts, optimizer=partial(torch.optim.AdamW, lr=lr), **arguments)


def clips(count: int = 2, frames: int = 4, prompts: ClipPrompts = FEW, size: int = 64) -> Batch:
    dataset = MovingShapes(None, "train", size=(size, size), train=count)
    loaded = Augmented(dataset, [], prompts, clip_frames=ClipFrames(frames, (2,)))
    return collate([loaded[Draw(i, (0, 0, i))] for i in range(count)])


def gradients(model: Video, given: Batch) -> dict[str, Tensor | None]:
    model.zero_grad()
    torch.stack([*model.compute_losses(given).values()]).sum().backward()
    return {name: p.grad for name, p in model.network.named_parameters()}


@pytest.mark.parametrize("kind", PLANS)
def test_every_parameter_has_a_gradient_in_every_kind_of_step(kind: str) -> None:
    found = gradients(family(planned(kind)), clips())
    assert all(grad is not None and grad.isfinite().all() for grad in found.values())
    zero = {name for name, grad in found.items() if not grad.any()}  # type: ignore[union-attr]
    allowed = ["mask_decoder.output_hypernetworks_mlps.", "no_obj_", "k_proj.bias"]  # never the best; all were there
    if "mask" in kind:
        allowed += ["prompt_encoder.mask_downscaling", "prompt_encoder.point_embeddings", "prompt_encoder.no_mask"]
        allowed += ["no_mem_embed"]  # of frames that are asked without memory
        assert "mask_downsample.weight" not in zero
    else:
        allowed.append("mask_downsample.")  # of given masks
    if kind == "point":
        allowed += ["prompt_encoder.point_embeddings.2", "prompt_encoder.point_embeddings.3"]  # corners
    assert not [name for name in zero if not any(each in name for each in allowed)]


def test_what_is_remembered_of_a_frame_learns_from_those_after_it() -> None:
    """By the losses of the second frame alone: the mask of the first was given."""
    found = gradients(family(planned("mask")), clips(frames=2))
    for part in ("memory_encoder.out_proj.weight", "obj_ptr_proj.layers.0.weight", "memory_attention.norm.weight"):
        assert found[part].abs().max() > 0  # type: ignore[union-attr]
    # the first frame's features reach the second by memory: the gradient of the encoder is not that of one frame
    model, given = family(planned("mask")), clips(frames=2)
    images = model.embedded(given.images, given.sizes)
    for each in images.embedding:
        each.retain_grad()
    losses = Clips(images, given, [0, 2], 2, model.criterion).losses(PLANS["mask"])
    torch.stack([*losses.values()]).sum().backward()
    coarse = images.embedding[0].grad
    assert coarse is not None
    assert (coarse.abs().amax((1, 2, 3)) > 0).all()


def test_masks_are_those_that_a_tracker_follows() -> None:
    """Where both remember alike: in evaluation, without rounding."""
    model, given = family(planned("mask")), clips(1)
    model.eval()
    seen = list[Tensor]()

    class Listening(PromptLoss):
        def forward(self, masks: Tensor, *others: Any) -> Any:
            seen.append(masks[torch.arange(len(masks)), others[0].argmax(1)])
            return super().forward(masks, *others)

    with torch.no_grad():
        images = model.embedded(given.images, given.sizes)
        Clips(images, given, [0], 4, Listening()).losses(PLANS["mask"])
        tracker = Tracker(model.network, 4, dtype=torch.float32, holes=0)
        one = [model.embedded(given.images[i : i + 1], given.sizes[i : i + 1]) for i in range(4)]
        truth = given.targets[0].segments.masks.as_subclass(Tensor)  # type: ignore[union-attr]
        tracker.prompt(0, one[0], Prompts(torch.arange(len(truth)), masks=truth))
        tracker.follow(0, one[0])
        for number in range(1, 4):
            found = tracker.follow(number, one[number])
            there = found.object_score > 0
            assert there.any()
            torch.testing.assert_close(found.masks[there], seen[number - 1][there], rtol=1e-4, atol=1e-4)


class Listening(SAM2):
    """Writes down what it is asked."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, **SMALL)
        self.asked: list[tuple[PromptInput, bool]] = []
        self.recalled: list[Any] = []

    def attend(self, embedding: Any, recalled: Any) -> Any:
        self.recalled.append(recalled)
        return super().attend(embedding, recalled)

    def answer(self, embedding: Any, prompts: PromptInput, multimask: bool = True) -> Any:
        self.asked.append((prompts, multimask))
        return super().answer(embedding, prompts, multimask)


def test_frames_are_asked_in_the_order_and_as_often_as_the_plan_says() -> None:
    """A box in the first frame and a point in the second, both corrected twice, then the others by memory alone: of one
    click there are three masks, of all else that is said one, and of nothing three."""
    model, given = family(planned("both"), Listening), clips(1)
    model.compute_losses(given)
    asked, recalled = model.network.asked, model.network.recalled  # type: ignore[union-attr]
    assert [multimask for _, multimask in asked] == [False] * 3 + [True, False, False] + [True, True]
    assert [prompt.masks is None for prompt, _ in asked] == [True, False, False] * 2 + [True, True]
    assert [None if each is None else each.ages[0].tolist() for each in recalled] == [None, None, [0, 0], [0, 0, 1]]
    assert [each.distances[0].tolist() for each in recalled[2:]] == [[2, 1], [3, 2, 1]]
    assert {each.furthest for each in recalled[2:]} == {3}


def test_a_prompted_frame_is_attended_to_by_those_before_it() -> None:
    """As in the release's training; ages of pointers have a sign."""
    model, given = family(planned("masks"), Listening), clips(1)
    model.compute_losses(given)
    recalled = [each for each in model.network.recalled if each is not None]  # type: ignore[union-attr]
    assert [each.ages[0].tolist() for each in recalled] == [[0, 0], [0, 0, 2]]
    assert [each.distances[0].tolist() for each in recalled] == [[1, -1], [3, 1, 2]]


def test_a_frame_that_was_followed_and_corrected_is_remembered_as_prompted() -> None:
    model, given = family(planned("box"), Listening), clips(1)
    model.compute_losses(given)
    recalled = [each for each in model.network.recalled if each is not None]  # type: ignore[union-attr]
    assert [each.ages[0].tolist() for each in recalled] == [[0], [0, 1], [0, 0, 2]]
    assert [multimask for _, multimask in model.network.asked] == [False] * 3 + [True] + [True, True, False] + [True]  # type: ignore[union-attr]


def test_masks_and_their_estimates_learn_only_where_the_object_is() -> None:
    """It is gone in the second frame: the first is given, so that nothing is left but whether it is there."""
    model, gone = family(planned("mask")), collate([FEW.of_clip([frame(1), frame(2)], np.random.default_rng(0))])
    losses = model.compute_losses(gone)
    assert [losses[name].item() for name in ("focal", "dice", "iou")] == [0, 0, 0]
    assert losses["object_score"].item() > 0
    found = gradients(model, gone)
    learned = {name for name, grad in found.items() if grad.any()}  # type: ignore[union-attr]
    assert "mask_decoder.pred_obj_score_head.layers.0.weight" in learned
    assert not [name for name in learned if "hypernetworks" in name or "iou_prediction" in name]
    seen = collate([FEW.of_clip([frame(1), frame(1)], np.random.default_rng(0))])
    assert model.compute_losses(seen)["dice"].item() > 0.1


def test_losses_are_sums_over_frames_and_rounds_and_means_over_clips() -> None:
    """Of a criterion that says 1 for each image that has objects."""

    class One(PromptLoss):
        def forward(self, masks: Tensor, iou: Tensor, score: Any, truths: Any, enlarge: Any, shown: Tensor) -> Any:
            _, seen = super().forward(masks, iou, score, truths, enlarge, shown)
            present = sum(len(truth) > 0 for truth in truths) / len(truths)
            return {"focal": masks.sum() * 0 + present}, seen

    rounds = {"mask": 3, "masks": 2, "point": 6, "box": 8, "both": 8}  # of four frames, two clicks
    for kind, count in rounds.items():
        model = family(planned(kind), criterion=One())
        assert model.compute_losses(clips())["focal"].item() == count, kind
        several = [FEW.of_clip(each, np.random.default_rng(0)) for each in ([frame(1)] * 4, [frame()] * 4)]
        assert model.compute_losses(collate(several))["focal"].item() == count / 2, kind


def test_clips_of_several_lengths_are_a_mean_over_all_of_them() -> None:
    prompts = ClipPrompts(max_objects=1, clicks=1)
    rng = np.random.default_rng
    some = [prompts.of_clip(each, rng(0)) for each in ([frame(1)] * 3, [frame(2)] * 2, [frame(3)])]
    model = family(prompts)
    together = model.compute_losses(collate(some))
    each = [model.compute_losses(collate([clip])) for clip in some]
    for name, value in together.items():
        assert value.item() == pytest.approx(sum(losses[name].item() for losses in each) / 3, rel=1e-4, abs=1e-6)


def test_clips_without_objects_give_a_loss_of_0_and_gradients() -> None:
    nothing = collate([FEW.of_clip([frame(), frame()], np.random.default_rng(0))])
    model = family()
    found = {name: loss.item() for name, loss in model.compute_losses(nothing).items()}
    assert found == {"focal": 0, "dice": 0, "iou": 0, "object_score": 0}
    assert all(grad is not None and not grad.any() for grad in gradients(model, nothing).values())


@pytest.mark.parametrize("kind", ["mask", "both"])
def test_rounds_that_are_computed_again_learn_the_same(kind: str) -> None:
    kept, again = (gradients(family(planned(kind), recompute_rounds=r), clips()) for r in (False, True))
    for name, grad in kept.items():
        torch.testing.assert_close(again[name], grad, rtol=1e-4, atol=1e-6)


def test_where_nothing_is_wrong_a_click_is_beside_the_object() -> None:
    truth = torch.zeros(300, 4, 5, dtype=torch.bool)
    truth[:, :2] = True
    points, kinds = click_at_error(truth, truth, torch.rand(300, generator=torch.Generator().manual_seed(0)), True)
    assert (kinds == NOT_OBJECT).all()
    assert len(points.unique(dim=0)) == 10
    assert points[:, 1].unique().tolist() == [2.5, 3.5]
    everywhere = torch.ones_like(truth)
    _, kinds = click_at_error(everywhere, everywhere, torch.zeros(300), True)
    assert (kinds == PADDING).all()


def test_a_click_of_the_truth_is_on_the_object_whatever_is_shown() -> None:
    prompts = planned("point", from_truth=1.0, clicks=3)
    model, given = family(prompts, Listening), clips(1, prompts=prompts)
    model.compute_losses(given)
    last = model.network.asked[3][0]  # type: ignore[union-attr]
    assert (last.kinds == OBJECT).all()
    masks = given.targets[0].segments.masks  # type: ignore[union-attr]
    for mask, points in zip(masks, last.points, strict=True):
        x, y = (points - 0.5).round().long().unbind(1)
        assert mask[y, x].all()


@pytest.mark.slow
def test_one_clip_is_learned() -> None:
    """Two objects by the first frame's masks: by J and F of what a tracker then finds in the frames after it."""
    prompts = planned("mask")
    model, given = family(prompts, criterion=PromptLoss(supervise_all_iou=True)), clips(1, prompts=prompts)
    (optimizer,), _ = model.configure_optimizers()
    totals = list[float]()
    for _ in range(80):
        loss = torch.stack([*model.compute_losses(given).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        totals.append(loss.item())
    assert totals[-1] < 0.1 * totals[0]
    metric = VideoMetric(Shapes.labels)
    model.eval()
    with torch.no_grad():
        metric.update(model.answer(given), given.targets)
    figures = metric.compute()
    assert figures["J"] > 0.8
    assert figures["F"] > 0.8


FROZEN = ParameterRules(frozen=["image_encoder"])


def moving(**arguments: Any) -> DataModule:
    dataset = partial(MovingShapes, size=(64, 64), frames=5, train=4, val=2, test=2)
    given = {"batch_size": 2, "num_workers": 0, "clip_frames": ClipFrames(3), **arguments}
    return DataModule(lambda root, split: dataset(root, split), **given)


def test_a_frozen_encoder_stays_and_the_rest_learns(tmp_path: Path) -> None:
    model = family(parameters=FROZEN)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    fit = trainer(max_steps=2, limit_val_batches=0, default_root_dir=tmp_path, max_epochs=-1)
    fit.fit(model, moving())
    moved = {name for name, p in model.network.named_parameters() if not torch.equal(p, before[name])}
    assert not [name for name in moved if name.startswith("image_encoder.")]
    assert len(moved) > 0.8 * sum(not name.startswith("image_encoder.") for name in before)
    names = ("focal", "dice", "iou", "object_score")
    assert {f"train/loss_{name}" for name in names} <= fit.callback_metrics.keys()


def test_what_cannot_be_followed_stops_before_training(tmp_path: Path) -> None:
    def fit(data: DataModule) -> None:
        trainer(max_steps=1, default_root_dir=tmp_path).fit(family(), data)

    with pytest.raises(SegfolioError, match=r"train of Shapes holds images by themselves; take a dataset of videos"):
        fit(DataModule(lambda root, split: Shapes(None, split, train=2), batch_size=2, num_workers=0))
    with pytest.raises(SegfolioError, match=r"data.clip_frames asks for 6 frames, but the longest video of train has"):
        fit(moving(clip_frames=ClipFrames(6)))
    nothing = partial(Nothing, size=(64, 64), frames=3, train=2, val=2)
    with pytest.raises(SegfolioError, match=r"nothing to learn or to measure: no object that is not a crowd"):
        fit(DataModule(lambda root, split: nothing(None, split), batch_size=2, num_workers=0))
    with pytest.raises(SegfolioError, match=r"SAM has no memory by which to follow objects; take SAM2, or"):
        family(network=partial(SAM, **SAM.tiny))


def test_an_image_s_network_is_where_a_video_s_begins(tmp_path: Path) -> None:
    """Weights of a `Promptable` are those of a `Video`."""
    torch.manual_seed(1)
    images = Promptable(Shapes.labels, TINY, optimizer=partial(torch.optim.SGD, lr=0.1))
    fit = trainer(max_steps=1, limit_val_batches=0, default_root_dir=tmp_path)
    dataset = Shapes(None, "train", size=(48, 64), train=4)
    fit.fit(images, DataModule(lambda root, split: dataset, batch_size=2, num_workers=0))
    fit.save_checkpoint(tmp_path / "images.ckpt")
    video = family(init_from=str(tmp_path / "images.ckpt"))
    for name, value in images.network.state_dict().items():
        assert torch.equal(video.network.state_dict()[name], value), name


def test_losses_in_bfloat16_are_near_those_in_float32() -> None:
    model, given = family(planned("both")), clips(1)
    expected = model.compute_losses(given)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.compute_losses(given)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert found[name].item() == pytest.approx(value.item(), rel=0.05, abs=0.02)
