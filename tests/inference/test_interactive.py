"""A session of clicks: what the network is asked, what is shown, and what a mistake is told."""

from pathlib import Path

import numpy as np
import pytest
import torch

from segfolio.data.formats.images import write_image
from segfolio.data.image_space import GREY
from segfolio.errors import SegfolioError
from segfolio.inference.everything import Everything
from segfolio.inference.interactive import Answer, Interactive
from segfolio.inference.prompting import Embedder
from tests.inference.prompted import Discs
from tests.inference.sam_pair import picture, sam_pair

SIZE = (48, 60)


@pytest.fixture
def network() -> Discs:
    return Discs()


@pytest.fixture
def session(network: Discs) -> Interactive:
    session = Interactive(network)
    session.set_image(picture(*SIZE))
    return session


def test_an_image_is_embedded_once_whatever_is_asked(network: Discs, session: Interactive) -> None:
    session.click(10, 20)
    session.click(30, 20, positive=False)
    session.undo()
    session.box(3, 4, 20, 30)
    session.next_object()
    session.click(40, 40)
    session.select(0)
    session.everything(Everything(points_per_side=4, iou_threshold=0, stability_threshold=0))
    assert network.embedded == [1]
    session.set_image(picture(30, 30))
    assert network.embedded == [1, 1]
    assert session.objects == [None]


def test_a_click_is_at_the_centre_of_its_pixel_and_the_first_is_ambiguous(network, session) -> None:
    answer = session.click(10, 20)
    asked, multimask = network.asked[-1]
    assert multimask
    torch.testing.assert_close(asked.points, torch.tensor([[[10 * 64 / 60 + 0.5, 20 * 51 / 48 + 0.5]]]))
    assert asked.kinds.tolist() == [[1]]
    assert asked.masks is None
    assert answer.candidates.shape == (3, *SIZE)
    assert answer.score == max(answer.scores)
    assert (answer.mask == answer.candidates[answer.chosen]).all()
    assert answer.mask[20, 10]


def test_further_clicks_bring_the_logits_of_the_mask_that_is_shown(network, session) -> None:
    first = session.click(10, 20)
    other = (first.chosen + 1) % 3
    session.choose(other)
    second = session.click(30, 20, positive=False)
    asked, multimask = network.asked[-1]
    assert not multimask
    assert asked.kinds.tolist() == [[1, 0]]
    assert (asked.masks[0] == first.logits[other]).all()
    assert len(second.rles) == 1
    assert second.clicks == ((10, 20, 1), (30, 20, 0))


def test_undo_shows_what_was_before_and_asks_nothing(network, session) -> None:
    first = session.click(10, 20)
    session.click(30, 20)
    count = len(network.asked)
    assert session.undo() == first
    assert session.answer == first
    assert session.undo() is None
    assert session.answer is None
    assert len(network.asked) == count
    with pytest.raises(SegfolioError, match="nothing to undo"):
        session.undo()


def test_a_box_goes_with_the_clicks_and_is_cut_at_the_border(network, session) -> None:
    session.click(10, 20)
    answer = session.box(-5, 4, 20, 90)
    asked, multimask = network.asked[-1]
    assert not multimask
    torch.testing.assert_close(asked.boxes, torch.tensor([[0, 4 * 51 / 48, 20 * 64 / 60, 51]]))
    assert asked.points.shape == (1, 1, 2)
    assert asked.masks is None
    assert answer.box == (0, 4, 20, 48)
    session.click(5, 5)
    asked, _ = network.asked[-1]
    assert asked.boxes is not None
    assert (asked.masks[0] == answer.logits[0]).all()


def test_objects_do_not_know_of_each_other(session) -> None:
    first = session.click(10, 20)
    assert session.next_object() == 1
    assert session.next_object() == 1  # it has not been asked for yet
    assert session.answer is None
    second = session.click(40, 30, positive=True)
    assert second.clicks == ((40, 30, 1),)
    assert session.select(0) == first
    assert session.objects == [first, second]
    session.reset()
    assert session.objects == [None]
    assert session.size == SIZE


def test_a_mask_of_the_image_s_size_is_where_one_goes_on_from(network, session) -> None:
    mask = np.zeros(SIZE, np.bool_)
    mask[10:30, 15:45] = True
    answer = session.start_from(mask)
    asked, multimask = network.asked[-1]
    assert not multimask
    assert asked.masks.shape == (1, 32, 32)
    assert (asked.masks[0, 8, 16] > 5, asked.masks[0, 2, 16] < -5, asked.masks[0, 31, 16] < -5) == (True, True, True)
    assert (answer.mask & mask).sum() > 0.9 * mask.sum()


def test_answers_are_those_of_transformers_click_by_click() -> None:
    network, peer = sam_pair()
    image, size = picture(90, 113), (90, 113)
    session = Interactive(network)
    session.set_image(image)
    pixels = Embedder(network).embedded(torch.from_numpy(image).permute(2, 0, 1)[None], [size])
    scale = torch.tensor([pixels.seen[0][1] / size[1], pixels.seen[0][0] / size[0]])
    logits = None
    points, kinds = [], []
    for x, y, kind in ((20, 30, 1), (80, 60, 0), (50, 10, 1)):
        points.append([x, y])
        kinds.append(kind)
        with torch.no_grad():
            expected = peer(
                image_embeddings=pixels.embedding[0],
                input_points=(torch.tensor([[points]]) * scale).float(),
                input_labels=torch.tensor([[kinds]]),
                input_masks=None if logits is None else logits[:, None],
                multimask_output=logits is None,
            )
        answer = session.click(x, y, kind)
        torch.testing.assert_close(torch.tensor(answer.scores), expected.iou_scores[0, 0], rtol=0, atol=1e-4)
        best = int(expected.iou_scores[0, 0].argmax())
        assert answer.chosen == best
        logits = expected.pred_masks[0, :, best]
        shown = pixels.enlarge(logits, 0)[0].numpy()
        assert ((shown > 0) == answer.mask)[abs(shown) > 1e-4].all()


@pytest.mark.parametrize("kind", ["grey", "alpha", "tensor", "file"])
def test_an_image_may_be_an_array_a_tensor_or_a_file(network: Discs, tmp_path: Path, kind: str) -> None:
    colours = picture(*SIZE)
    session = Interactive(network)
    if kind == "grey":
        colours = colours[..., :1].repeat(3, axis=2)
        session.set_image(colours[..., 0])
    elif kind == "alpha":
        session.set_image(np.concatenate([colours, colours[..., :1]], 2))
    elif kind == "tensor":
        session.set_image(torch.from_numpy(colours).permute(2, 0, 1))
    else:
        write_image(tmp_path / "image.png", colours)
        session.set_image(tmp_path / "image.png")
    assert (session.image == colours).all()
    assert session.size == SIZE


def test_a_family_brings_its_own_images() -> None:
    network = Discs()
    session = Interactive(Embedder(network, GREY, [0.5], [0.25]))
    session.set_image(picture(*SIZE)[..., 0])
    assert session.click(3, 4).mask.shape == SIZE
    assert not network.training


@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        ("click", (60, 5), "a click is at x 60, y 5, outside the image of 60x48 pixels"),
        ("click", (5, -1), "a click is at x 5, y -1, outside"),
        ("click", (float("nan"), 5), "a click is at x nan, y 5, outside"),
        ("click", (5, 5, 2), r"the label of a click is 2, expected 1 \(on the object\) or 0 \(beside it\)"),
        ("box", (20, 4, 10, 30), "a box is 20, 4, 10, 30; expected left, top, right, bottom with left < right"),
        ("box", (20, 4, 20, 30), "a box is 20, 4, 20, 30; expected"),
        ("box", (70, 4, 80, 30), "a box is 70, 4, 80, 30; expected .* in the image of 60x48 pixels"),
        ("start_from", (np.zeros((60, 48), np.bool_),), "a mask is 48x60 pixels, expected those of the image, 60x48"),
        ("choose", (0,), "there is no candidate 0; the last answer has 0"),
        ("select", (1,), "there is no object 1; there are 1"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(session, method: str, arguments: tuple, said: str) -> None:
    with pytest.raises(SegfolioError, match=said):
        getattr(session, method)(*arguments)
    assert session.objects == [None]


def test_a_mask_to_start_from_is_where_it_is_not_0(session) -> None:
    """Whether it is of bool, or of 0 and 255 as files have it."""
    mask = np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1])) < 30
    of_bool, of_file = session.start_from(mask), session.start_from(255 * mask.astype(np.uint8))
    assert torch.equal(of_bool.logits, of_file.logits)
    assert torch.equal(of_bool.logits, session.start_from(torch.from_numpy(mask)).logits)


def test_starting_from_a_mask_is_undone_as_a_click_is(session) -> None:
    first = session.click(10, 20)
    session.start_from(np.ones(SIZE, np.bool_))
    assert session.undo() == first


WINDOW = 32


@pytest.fixture
def windowed(network: Discs) -> Interactive:
    session = Interactive(network, window=WINDOW)
    session.set_image(picture(*SIZE))
    return session


def of_the_part(network: Discs, answer: Answer) -> Interactive:
    """A session of what was seen alone."""
    left, top, right, bottom = answer.window
    assert (right - left, bottom - top) == (WINDOW, WINDOW)
    session = Interactive(network)
    session.set_image(picture(*SIZE)[top:bottom, left:right])
    return session


def test_in_a_window_it_is_as_with_an_image_of_that_part(network: Discs, windowed: Interactive) -> None:
    windowed.click(31, 25)
    answer = windowed.click(40, 30, positive=False)
    left, top, right, bottom = answer.window
    part = of_the_part(network, answer)
    part.click(31 - left, 25 - top)
    alone = part.click(40 - left, 30 - top, positive=False)
    assert (answer.mask[top:bottom, left:right] == alone.mask).all()
    assert answer.mask.sum() == alone.mask.sum() > 0
    assert answer.scores == alone.scores
    box, of_part = windowed.box(left + 3, top + 4, right + 9, top + 20), part.box(3, 4, WINDOW, 20)
    assert box.window == answer.window
    assert (box.mask[top:bottom, left:right] == of_part.mask).all()


def test_a_window_is_embedded_when_it_is_needed_and_once(network: Discs, windowed: Interactive) -> None:
    assert network.embedded == []
    first = windowed.click(5, 5)
    assert first.window == (0, 0, WINDOW, WINDOW)
    windowed.click(20, 20)
    assert network.embedded == [1]
    windowed.next_object()
    windowed.click(55, 40)
    assert network.embedded == [1, 1]
    windowed.select(0)
    windowed.click(9, 9)
    assert network.embedded == [1, 1]
    found = windowed.everything(Everything(points_per_side=4, iou_threshold=0, stability_threshold=0))
    whole = Interactive(network)
    whole.set_image(picture(*SIZE))
    assert found.rles == whole.everything(Everything(points_per_side=4, iou_threshold=0, stability_threshold=0)).rles


def test_a_click_beyond_the_window_is_seen_in_another_without_what_was_answered(network, windowed) -> None:
    first = windowed.click(5, 5)
    second = windowed.click(40, 30, positive=False)
    asked, multimask = network.asked[-1]
    assert second.window != first.window
    assert asked.masks is None
    assert not multimask
    assert second.clicks == ((5, 5, 1), (40, 30, 0))
    assert second.window == (16, 0, 48, 32)
    assert asked.kinds.tolist() == [[0]]
    third = windowed.click(20, 20)
    assert third.window == second.window
    assert network.asked[-1][0].kinds.tolist() == [[0, 1]]


def test_a_mask_to_start_from_is_cut_to_the_window_that_holds_most_of_it(windowed: Interactive) -> None:
    mask = np.zeros(SIZE, np.bool_)
    mask[20:44, 30:58] = True
    answer = windowed.start_from(mask)
    left, top, right, bottom = answer.window
    assert mask[top:bottom, left:right].sum() == mask.sum()
    assert (answer.mask & mask).sum() > 0.9 * mask.sum()
    assert windowed.start_from(np.zeros(SIZE, np.bool_)).window == (0, 0, WINDOW, WINDOW)


def test_a_window_larger_than_the_image_is_the_image(network: Discs) -> None:
    session = Interactive(network, window=100)
    session.set_image(picture(*SIZE))
    assert session.click(5, 5).window == (0, 0, SIZE[1], SIZE[0])
    with pytest.raises(SegfolioError, match="the window of a session is 0; give at least 1"):
        Interactive(network, window=0)


def test_asking_before_there_is_an_image_is_one_sentence(network: Discs) -> None:
    with pytest.raises(SegfolioError, match="there is no image yet"):
        Interactive(network).click(3, 4)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 5, 3), np.float32), "the image is of float32 values, expected uint8"),
        (np.zeros((4, 5, 7), np.uint8), "the image is of 7 channels, expected 3"),
        (np.zeros((4, 5, 3, 1), np.uint8), r"an image is of shape \[4, 5, 3, 1\], expected"),
        (np.zeros((0, 5, 3), np.uint8), r"an image is of shape \[0, 5, 3\], expected"),
        (torch.zeros(1, 3, 4, 5, dtype=torch.uint8), r"an image is of shape \[1, 3, 4, 5\], expected"),
    ],
)
def test_an_image_of_another_kind_is_one_sentence(network: Discs, image: np.ndarray | torch.Tensor, said: str) -> None:
    with pytest.raises(SegfolioError, match=said):
        Interactive(network).set_image(image)


def test_an_image_that_cannot_be_read_is_one_sentence(network: Discs, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"no image")
    with pytest.raises(SegfolioError, match=r"no\.png cannot be decoded"):
        Interactive(network).set_image(tmp_path / "no.png")
