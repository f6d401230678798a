"""What every promptable network promises, for every file of the room, found by discovery."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from segfolio.errors import SegfolioError
from segfolio.families.lora import LoRA, add_lora
from segfolio.layers.prompting import PromptableNetwork, PromptedMasks, PromptInput, SelectingNetwork, best, of_images
from segfolio.listing import architecture_classes
from segfolio.weights.low_rank import merged
from tests.architectures.promptable.prompts import boxes, find_several, of_kind, of_prompts, points

CLASSES = [cls for cls in architecture_classes() if cls.__module__.split(".")[-2] == "promptable"]
LEARNERS = [cls for cls in CLASSES if not issubclass(cls, SelectingNetwork)]  # of what they are asked
KINDS = ("point", "points", "box", "box + points", "mask", "mask + points")
PADDING = -10

every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
every_learner = pytest.mark.parametrize("cls", LEARNERS, ids=lambda cls: cls.__name__)
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def evaluated(cls: Any, **arguments: Any) -> PromptableNetwork:
    """The tiniest of its kind, whose positions and prompts matter."""
    network = cls(1, **cls.tiny, **arguments).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    if isinstance(network, SelectingNetwork):
        find_several(network.image_encoder)
    return network


def images_of(network: PromptableNetwork, count: int = 2, dtype: torch.dtype | None = None) -> Tensor:
    """Wider than high, and narrower than the network's square."""
    return torch.randn(count, 3, network.image_size - 19, network.image_size - 2, dtype=dtype)


def asked(network: PromptableNetwork, kind: str, images: int = 2, each: int = 2) -> PromptInput:
    side = network.image_size
    return of_kind(kind, (side - 19, side - 2), network.mask_size, images, each)


def assert_close(a: PromptedMasks, b: PromptedMasks) -> None:
    for x, y in zip(a, b, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def rows(answers: PromptedMasks, which: Any) -> PromptedMasks:
    return PromptedMasks(*(None if x is None else x[which] for x in answers))


def test_the_room_is_there() -> None:
    assert {"SAM"} <= {cls.__name__ for cls in CLASSES}
    assert all(issubclass(cls, PromptableNetwork) for cls in CLASSES)


@every_class
@every_kind
@torch.no_grad()
def test_answers_have_the_shapes_and_parts_of_the_contract(cls: Any, kind: str) -> None:
    network = evaluated(cls)
    images, prompts = images_of(network), asked(network, kind)
    for multimask in (True, False):
        answers = network(images, prompts, multimask)
        count, side = answers.iou.shape[1], network.mask_size
        assert (count > 1) == multimask
        assert answers.masks.shape == (4, count, side, side)
        assert answers.iou.shape == (4, count)
        assert answers.object_score is None or answers.object_score.shape == (4,)
        assert answers.masks.isfinite().all()
        embedding = network.embed(images)
        reading = network.read(embedding, prompts, multimask)
        assert_close(answers, network.decode(embedding, prompts, multimask))
        assert_close(answers, PromptedMasks(network.draw(reading), reading.iou, reading.object_score))
    assert best(answers)[0].shape == (4, side, side)


@every_learner
@torch.no_grad()
def test_prompts_matter(cls: Any) -> None:
    """A point's place and kind, a box, a mask."""
    network = evaluated(cls)
    embedding, first = network.embed(images_of(network)), asked(network, "points")
    changed = [
        first._replace(points=first.points + 3),
        first._replace(kinds=1 - first.kinds),
        first._replace(boxes=boxes(first.image, (80, 80))),
        first._replace(masks=torch.randn(4, network.mask_size, network.mask_size)),
    ]
    same = network.decode(embedding, first).masks
    assert all((network.decode(embedding, other).masks - same).abs().max() > 1e-3 for other in changed)


@every_class
@torch.no_grad()
def test_an_embedding_is_of_its_images_each(cls: Any) -> None:
    """It can be cut, and its prompts may come in any order and number."""
    network = evaluated(cls)
    embedding, prompts = network.embed(images_of(network, 3)), asked(network, "points", images=3)
    whole = network.decode(embedding, prompts)
    for i in range(3):
        own = prompts.image == i
        alone = of_prompts(prompts, own)._replace(image=torch.zeros(2, dtype=torch.int64))
        assert_close(rows(whole, own), network.decode(of_images(embedding, slice(i, i + 1)), alone))
    order = torch.tensor([5, 0, 3, 3, 1])
    assert_close(rows(whole, order), network.decode(embedding, of_prompts(prompts, order)))


@every_class
@torch.no_grad()
def test_images_are_padded_by_the_network_on_the_right_and_below(cls: Any) -> None:
    network = evaluated(cls)
    images, prompts = images_of(network), asked(network, "box + points")
    square = torch.zeros(2, 3, network.image_size, network.image_size)
    square[..., : images.shape[-2], : images.shape[-1]] = images
    assert_close(network(images, prompts), network(square, prompts))


@every_class
def test_an_image_that_is_too_long_is_refused(cls: Any) -> None:
    network = evaluated(cls)
    with pytest.raises(SegfolioError, match=f"an image is {network.image_size + 1}x40 pixels, expected at most"):
        network.embed(torch.zeros(1, 3, 40, network.image_size + 1))


@every_class
@pytest.mark.parametrize("kind", ["points", "mask + points"])
@torch.no_grad()
def test_answers_that_are_kept_are_those_of_all(cls: Any, kind: str) -> None:
    network = evaluated(cls)
    reading = network.read(network.embed(images_of(network)), asked(network, kind))
    masks = network.draw(reading)
    some = torch.zeros_like(reading.iou, dtype=torch.bool)
    some[0, 1] = some[2] = True
    for keep in (some, torch.ones_like(some), torch.zeros_like(some)):
        torch.testing.assert_close(network.draw(reading, keep), masks[keep], atol=1e-5, rtol=1e-5)


@every_class
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@torch.no_grad()
def test_prompts_of_a_ragged_batch_are_answered_as_each_alone(cls: Any, training: bool) -> None:
    """One to four points, with and without a box, or nothing at all."""
    network = evaluated(cls).train(training)
    embedding, size = network.embed(images_of(network)), (80, 80)
    image = torch.tensor([0, 1, 0, 1, 0, 1])
    lengths, with_box = torch.tensor([1, 4, 2, 0, 3, 0]), torch.tensor([0, 0, 1, 1, 0, 0]) > 0
    prompts = points(image, 4, size)._replace(boxes=boxes(image, size).where(with_box[:, None], torch.nan))
    beyond = torch.arange(4) >= lengths[:, None]
    prompts = prompts._replace(kinds=prompts.kinds.masked_fill(beyond, PADDING))
    prompts.points[beyond] = torch.nan  # the place of padding is nowhere
    together = network.decode(embedding, prompts)
    for i in range(6):
        one = slice(i, i + 1)
        alone = PromptInput(
            prompts.image[one],
            prompts.points[one, : lengths[i]],
            prompts.kinds[one, : lengths[i]],
            prompts.boxes[one] if with_box[i] and prompts.boxes is not None else None,
        )
        assert_close(rows(together, one), network.decode(embedding, alone))


@every_class
@torch.no_grad()
def test_no_prompts_have_no_answers(cls: Any) -> None:
    network = evaluated(cls)
    for kind in KINDS:
        none = of_prompts(asked(network, kind), slice(0))
        answers = network(images_of(network), none)
        assert answers.masks.shape == (0, answers.iou.shape[1], network.mask_size, network.mask_size)


@every_learner
@every_kind
@pytest.mark.parametrize("multimask", [True, False], ids=["three masks", "one"])
def test_every_parameter_gets_a_gradient_whatever_the_prompts_are(cls: Any, kind: str, multimask: bool) -> None:
    """So that DDP needs no search for unused ones."""
    network = cls(1, **cls.tiny).train()
    answers = network(images_of(network), asked(network, kind), multimask)
    scores = () if answers.object_score is None else (answers.object_score.square().mean(),)
    torch.stack([answers.masks.square().mean(), answers.iou.square().mean(), *scores]).sum().backward()
    trained = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, grad in trained.items() if grad is None] == []
    assert all(grad.isfinite().all() for grad in trained.values())


@every_learner
@every_kind
def test_a_decoder_is_adapted_by_low_rank_in_every_linear_layer(cls: Any, kind: str) -> None:
    """Also in those whose weights are folded into others: all learn, and are what they are when they are merged."""
    plain, adapted = evaluated(cls), cls(1, **cls.tiny)
    adapted.load_state_dict(plain.state_dict())
    linear = {n.rpartition(".")[2] for n, m in plain.mask_decoder.named_modules() if isinstance(m, torch.nn.Linear)}
    add_lora(adapted, LoRA(["mask_decoder"], sorted(linear)))
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            p.add_(0.1 * torch.randn_like(p) if ".lora_" in name else 0)
    images, prompts = images_of(plain), asked(plain, kind)
    answers = adapted.eval()(images, prompts)
    with pytest.raises(AssertionError):
        assert_close(answers, plain(images, prompts))
    plain.load_state_dict(merged(adapted.state_dict(), 1.0))
    assert_close(answers, plain(images, prompts))
    learns = {n: p for n, p in adapted.train().named_parameters() if ".lora_" in n}
    answers = adapted(images, prompts)
    scores = () if answers.object_score is None else (answers.object_score.square().mean(),)
    torch.stack([answers.masks.square().mean(), answers.iou.square().mean(), *scores]).sum().backward()
    assert [name for name, p in learns.items() if p.grad is None] == []


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
@every_class
def test_an_image_of_any_proportion_has_a_size_that_is_seen(cls: Any, size: tuple[int, int]) -> None:
    network = evaluated(cls)
    fit = network.fit(*size)
    assert min(fit) >= 1
    assert max(fit) == network.image_size
    network.embed(torch.randn(1, 3, *fit))


@pytest.fixture(params=[torch.bfloat16, torch.float64], ids=str)
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """As Lightning's `bf16-true` and `64-true`: weights and what is made are of that type; prompts are float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@every_learner
@pytest.mark.parametrize("kind", ["box + points", "mask + points"])
def test_trains_and_answers_in_every_precision(cls: Any, kind: str, dtype: torch.dtype) -> None:
    network = cls(1, **cls.tiny).to(dtype).train()
    prompts = asked(network, kind)
    prompts = prompts._replace(points=prompts.points.float())
    answers = network(images_of(network), prompts)
    (answers.masks.float().square().mean() + answers.iou.float().square().mean()).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    assert answers.masks.isfinite().all()


@every_learner
@pytest.mark.parametrize("kind", ["box + points", "mask + points"])
def test_mixed_precision_is_near_to_full(cls: Any, kind: str) -> None:
    network = evaluated(cls)
    images, prompts = images_of(network), asked(network, kind)
    with torch.no_grad():
        full = network(images, prompts)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(images, prompts)
    assert (mixed.masks.float() - full.masks).abs().mean() < 0.1 * full.masks.std()


@every_class
@torch.no_grad()
def test_state_dict_holds_the_whole_network(cls: Any) -> None:
    network, copy = evaluated(cls), cls(1, **cls.tiny).eval()
    images, prompts = images_of(network), asked(network, "box + points")
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    copy.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(copy(images, prompts).masks, network(images, prompts).masks)


@every_learner
@every_kind
@torch.no_grad()
def test_export_gives_the_same_answers(cls: Any, kind: str) -> None:
    network = evaluated(cls)
    images, prompts = images_of(network, 1), asked(network, kind, images=1)
    exported = torch.export.export(network, (images, prompts)).module()
    assert_close(PromptedMasks(*exported(images, prompts)), network(images, prompts))


@every_learner
def test_a_network_that_takes_in_channels_reads_images_of_as_many(cls: Any) -> None:
    network = cls(1, **cls.tiny, in_channels=5).train()
    images = torch.randn(2, 5, 64, 64, requires_grad=True)
    network(images, asked(network, "points")).masks.square().mean().backward()
    assert images.grad is not None
    assert (images.grad.abs().amax((0, 2, 3)) > 0).all()


@every_learner
def test_overfits_one_batch(cls: Any) -> None:
    """Two squares of one image, told apart by a point in each."""
    network = cls(1, **cls.tiny).train()
    side, cell = network.image_size, network.image_size // network.mask_size
    image, target = torch.zeros(1, 3, side, side), torch.zeros(2, network.mask_size, network.mask_size)
    for i, start in enumerate((side // 8, side // 2)):
        image[:, i, start : start + side // 4, start : start + side // 4] = 1
        target[i, start // cell : (start + side // 4) // cell, start // cell : (start + side // 4) // cell] = 1
    middle = torch.tensor([side / 4, side * 5 / 8])
    prompts = PromptInput(
        torch.zeros(2, dtype=torch.int64), middle[:, None, None].expand(2, 1, 2), torch.ones(2, 1).long()
    )
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=0.0003), []
    for _ in range(100):
        masks = network(image, prompts, multimask=False).masks[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(masks, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.1 * losses[0]
