"""How `Promptable` learns: what is asked, that all of it learns, and that the batch is learned."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segfolio.architectures.promptable.sam import SAM
from segfolio.data.batches import collate
from segfolio.data.datasets import Shapes
from segfolio.data.module import DataModule
from segfolio.data.prompt_sampling import PromptSampling
from segfolio.data.prompts import NOT_OBJECT, OBJECT, PADDING
from segfolio.data.sample import Batch
from segfolio.data.transforms import RandomWindow
from segfolio.errors import SegfolioError
from segfolio.families import Promptable
from segfolio.families.optimization import ParameterRules
from segfolio.families.prompt_rounds import click_at_error
from segfolio.layers.prompting import PromptInput, best
from tests.data.test_prompt_sampling import DATASETS, sample, squares
from tests.families.test_detection import trainer

TINY = partial(SAM, **{**SAM.tiny, "image_size": 64, "width": 16, "depth": 1, "global_blocks": (0,)})
FEW = PromptSampling(max_objects=3, clicks=2, pauses=2)


def family(prompts: PromptSampling = FEW, network: Any = TINY, lr: float = 1e-3, **arguments: Any) -> Promptable:
    torch.manual_seed(0)
    optimizer = partial(torch.optim.AdamW, lr=lr)
    return Promptable(Shapes.labels, network, prompts=prompts, optimizer=optimizer, **arguments)


def batch(prompts: PromptSampling = FEW, images: int = 2, seed: int = 0) -> Batch:
    dataset = Shapes(None, "train", size=(48, 64), train=images)
    return collate([[prompts(dataset[i], np.random.default_rng([seed, i]))] for i in range(images)])


def of_kind(kind: str) -> PromptSampling:
    return PromptSampling(max_objects=3, clicks=2, pauses=2, box_probability=float(kind == "box"))


class Listening(SAM):
    """Writes down what it is asked."""

    def __init__(self, *given: Any, **arguments: Any) -> None:
        super().__init__(*given, **arguments)
        self.embedded = 0
        self.asked: list[tuple[PromptInput, bool]] = []

    def embed(self, images: Tensor) -> Any:
        self.embedded += 1
        return super().embed(images)

    def read(self, embedding: Any, prompts: PromptInput, multimask: bool = True) -> Any:
        self.asked.append((prompts, multimask))
        return super().read(embedding, prompts, multimask)


def listening(num_classes: int) -> SAM:
    return Listening(num_classes, **TINY.keywords)


@pytest.mark.parametrize(("kind", "ambiguous"), [("point", True), ("box", True), ("box", False)])
def test_a_step_embeds_once_and_asks_as_often_as_the_recipe_says(kind: str, ambiguous: bool) -> None:
    """Eleven rounds by default, of which nine bring a prompt; three masks first, one then, with the answer before."""
    prompts = PromptSampling(max_objects=3, box_probability=float(kind == "box"), box_ambiguity=float(ambiguous))
    model, given = family(prompts, listening), batch(prompts)
    model.compute_losses(given)
    asked = model.network.asked
    assert model.network.embedded == 1
    assert len(asked) == 11
    assert [multimask for _, multimask in asked] == [ambiguous] + 10 * [False]
    assert [prompt.masks is None for prompt, _ in asked] == [True] + 10 * [False]
    first, last = asked[0][0], asked[-1][0]
    assert (first.boxes is None) == (kind == "point")
    assert first.kinds.tolist() == (len(first.image) * [[OBJECT]] if kind == "point" else len(first.image) * [[]])
    clicks = last.kinds[:, 1:] if kind == "point" else last.kinds
    assert (clicks != PADDING).sum(1).max() == 8
    assert not last.masks.requires_grad
    torch.testing.assert_close(last.points[:, : first.points.shape[1]], first.points)


def test_a_click_is_where_the_answer_was_wrong() -> None:
    """In pixels of the sample, with the right kind, and uniform."""
    truth = torch.zeros(400, 5, 7, dtype=torch.bool)
    seen = truth.clone()
    truth[:, 1, 2:6] = seen[:, 1, 4:] = True  # 2 and 3 are missed, 6 is too much
    points, kinds = click_at_error(seen, truth, torch.rand(400, generator=torch.Generator().manual_seed(0)))
    assert points[:, 1].unique().tolist() == [1.5]
    columns, counts = points[:, 0].unique(return_counts=True)
    assert columns.tolist() == [2.5, 3.5, 6.5]
    assert counts.min() > 100
    assert torch.equal(kinds, torch.where(points[:, 0] == 6.5, NOT_OBJECT, OBJECT))


def test_every_pixel_that_is_wrong_is_clicked_in_reading_order() -> None:
    truth = torch.rand(6, 7, generator=torch.Generator().manual_seed(1)) < 0.4
    wrong = truth.nonzero()
    places = (torch.arange(len(wrong)) + 0.5) / len(wrong)
    many = truth.expand(len(wrong), -1, -1)
    points, kinds = click_at_error(torch.zeros_like(many), many, places)
    assert torch.equal(points.flip(1) - 0.5, wrong.float())
    assert (kinds == OBJECT).all()


def test_without_an_error_or_a_place_there_is_no_click() -> None:
    truth = torch.zeros(2, 5, 7, dtype=torch.bool)
    truth[:, 2, 3] = True
    seen = truth.clone()
    seen[1] = False
    _, kinds = click_at_error(seen, truth, torch.tensor([0.5, -1.0]))
    assert kinds.tolist() == [PADDING, PADDING]
    _, kinds = click_at_error(seen, truth, torch.tensor([0.5, 1.0]))
    assert kinds.tolist() == [PADDING, OBJECT]


def gradients(model: Promptable, given: Batch) -> dict[str, Tensor | None]:
    model.zero_grad()
    torch.stack([*model.compute_losses(given).values()]).sum().backward()
    return {name: p.grad for name, p in model.network.named_parameters()}


@pytest.mark.parametrize("kind", ["point", "box"])
def test_every_parameter_has_a_gradient_in_every_kind_of_step(kind: str) -> None:
    found = gradients(family(of_kind(kind)), batch())
    assert all(grad is not None and grad.isfinite().all() for grad in found.values())
    zero = {name for name, grad in found.items() if not grad.any()}
    corners = {f"prompt_encoder.point_embeddings.{i}.weight" for i in (2, 3)}
    assert corners <= zero if kind == "point" else not corners & zero
    others = ("mask_decoder.output_hypernetworks_mlps.", "prompt_encoder.not_a_point")  # masks that were never the best
    assert all(name.startswith(others) or name.endswith("k_proj.bias") for name in zero - corners)  # softmax ignores it


def test_images_without_objects_give_a_loss_of_0_and_gradients() -> None:
    nothing = collate([[FEW(sample(squares()), np.random.default_rng(0))]])
    model = family()
    assert {name: loss.item() for name, loss in model.compute_losses(nothing).items()} == {
        "focal": 0,
        "dice": 0,
        "iou": 0,
    }
    assert all(grad is not None and not grad.any() for grad in gradients(model, nothing).values())


def test_an_image_without_objects_beside_another_changes_nothing_but_the_mean() -> None:
    one, nothing = (FEW(sample(masks), np.random.default_rng(0)) for masks in (squares(9, 12), squares()))
    model = family(of_kind("point"))
    alone, beside = (model.compute_losses(collate(clips)) for clips in ([[one]], [[one], [nothing]]))
    for name, value in alone.items():
        assert beside[name].item() == pytest.approx(value.item() / 2, rel=1e-5)


def test_prompts_are_ragged_and_images_padded() -> None:
    """A batch of images of other sizes and numbers of objects has the mean loss of its images."""
    dataset = Shapes(None, "train", size=(48, 64), train=2)
    windows = [RandomWindow((40, 56)), RandomWindow((48, 40))]
    samples = [FEW(w(dataset[i], np.random.default_rng(i)), np.random.default_rng(i)) for i, w in enumerate(windows)]
    model = family(of_kind("box"))
    together = model.compute_losses(collate([[s] for s in samples], padded=True))
    each = [model.compute_losses(collate([[s]])) for s in samples]
    assert len({len(s.prompts) for s in samples} | {2}) > 1
    for name, value in together.items():
        assert value.item() == pytest.approx(sum(losses[name].item() for losses in each) / 2, rel=1e-4)


@pytest.mark.parametrize("kind", ["point", "box"])
def test_rounds_that_are_computed_again_learn_the_same(kind: str) -> None:
    kept, again = (gradients(family(of_kind(kind), recompute_rounds=r), batch()) for r in (False, True))
    for name, grad in kept.items():
        torch.testing.assert_close(again[name], grad, rtol=1e-5, atol=1e-7)


def test_one_batch_is_learned() -> None:
    """By the masks that the network thinks best, of a point each."""
    prompts = PromptSampling(max_objects=2, clicks=1, pauses=0, box_probability=0.0)
    model, given = family(prompts, lr=2e-3), batch(prompts, images=1)
    (optimizer,), _ = model.configure_optimizers()
    totals = []
    for _ in range(100):
        loss = torch.stack([*model.compute_losses(given).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        totals.append(loss.item())
    assert totals[-1] < 0.2 * totals[0]
    images = model.embedded(given.images, given.sizes)
    ious = []
    with torch.no_grad():
        for i, (asked, target) in enumerate(zip(given.prompts, given.targets, strict=True)):
            asked.boxes = None
            logits, _ = best(images.ask(asked, torch.full((len(asked),), i)))
            found, truth = images.enlarge(logits, i) > 0, target.segments.masks
            ious += ((found & truth).sum((1, 2)) / (found | truth).sum((1, 2))).tolist()
    assert np.mean(ious) > 0.8


def test_losses_in_bfloat16_are_near_those_in_float32() -> None:
    model, given = family(), batch()
    expected = model.compute_losses(given)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.compute_losses(given)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert found[name].item() == pytest.approx(value.item(), rel=0.05, abs=0.01)


@pytest.mark.parametrize("made", DATASETS.values(), ids=DATASETS)
def test_two_steps_on_any_dataset_with_objects(made: Any, tmp_path: Path) -> None:
    dataset = made(tmp_path / "data")
    data = DataModule(
        lambda root, split: dataset, batch_size=2, num_workers=0, train_transforms=[RandomWindow((40, 40))]
    )
    model = family()
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    fit = trainer(max_steps=2, limit_val_batches=0, default_root_dir=tmp_path, max_epochs=-1)
    fit.fit(model, data)
    assert fit.global_step == 2
    moved = [name for name, p in model.network.named_parameters() if not torch.equal(p, before[name])]
    assert len(moved) > 0.9 * len(before)
    assert {"train/loss_focal", "train/loss_dice", "train/loss_iou"} <= fit.callback_metrics.keys()


FROZEN = ParameterRules(frozen=["image_encoder"])


def shapes(**arguments: Any) -> DataModule:
    dataset = Shapes(None, "train", size=(48, 64), train=4)
    return DataModule(lambda root, split: dataset, batch_size=2, num_workers=0, **arguments)


def curve(folder: Path, **arguments: Any) -> tuple[list[float], Promptable]:
    """The losses of two epochs, and what has learned."""
    model, losses = family(network=listening, parameters=FROZEN, **arguments), []
    model.on_train_batch_end = lambda outputs, *_: losses.append(outputs["loss"].item())
    trainer(max_epochs=2, limit_val_batches=0, default_root_dir=folder).fit(model, shapes())
    return losses, model


def test_embeddings_of_a_frozen_encoder_are_computed_once(tmp_path: Path) -> None:
    """Of each of four images, by the first run; in steps of two images they would be by four calls, in every run."""
    expected, model = curve(tmp_path)
    assert model.network.embedded == 4
    for calls in (4, 0):
        losses, model = curve(tmp_path, embeddings=str(tmp_path / "kept"))
        assert model.network.embedded == calls
        assert losses[0] == pytest.approx(expected[0], rel=5e-3)  # of float16
        assert losses == pytest.approx(expected, rel=0.05)  # as a click falls elsewhere
    assert len(list((tmp_path / "kept").rglob("*.safetensors"))) == 4
    dataset, rng = Shapes(None, "train", size=(48, 64), train=4), np.random.default_rng(0)
    for index in range(4):
        (kept,) = model.preparation(dataset[index], rng).extras["embedding"]
        ((found,),) = model.embedded(dataset[index].image[None], [(48, 64)]).embedding
        torch.testing.assert_close(kept.float(), found, rtol=1e-3, atol=1e-3)


def test_embeddings_that_would_not_hold_are_not_kept(tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    with pytest.raises(SegfolioError, match=r"keeps what the image encoder says of images, but it is trained; give"):
        family(embeddings=kept)
    changing = shapes(train_transforms=[RandomWindow((40, 40))])
    with pytest.raises(SegfolioError, match=r"train_transforms change the images, and the embeddings in .*kept are of"):
        trainer(max_steps=1, default_root_dir=tmp_path).fit(family(parameters=FROZEN, embeddings=kept), changing)
    curve(tmp_path, embeddings=kept)
    other = family(parameters=FROZEN, embeddings=kept, mean=(0.0, 0.0, 0.0))
    with pytest.raises(SegfolioError, match="holds embeddings of another network or other preprocessing"):
        trainer(max_steps=1, limit_val_batches=0, default_root_dir=tmp_path).fit(other, shapes())


def test_a_dataset_without_objects_stops_before_training(tmp_path: Path) -> None:
    from tests.data.test_prompt_sampling import WithoutObjects

    data = DataModule(lambda root, split: WithoutObjects(), batch_size=2, num_workers=0)
    with pytest.raises(SegfolioError, match="is asked for objects, but train train_00000 has none"):
        trainer(max_steps=2, limit_val_batches=0, default_root_dir=tmp_path).fit(family(), data)
