import numpy as np

from segfolio.data.labels import LabelSpace
from segfolio.viz.objects import object_colors, overlay_objects

CELLS = LabelSpace(("nucleus", "background"), things=("nucleus",), background="background")
STREET = LabelSpace(("car", "person", "road"), things=("car", "person"))


def scene():
    """Two squares that touch, on an image of one colour."""
    ids = np.zeros((12, 20), np.uint8)
    ids[2:8, 2:8], ids[2:8, 8:14] = 1, 2
    return np.full((12, 20, 3), 90, np.uint8), ids


def test_what_is_no_object_is_the_image_as_it_is():
    image, ids = scene()
    shown = overlay_objects(image, ids, [0, 0], CELLS)
    np.testing.assert_array_equal(shown[ids == 0], image[ids == 0])


def test_outlines_have_the_object_s_colour_and_insides_a_mixture():
    image, ids = scene()
    colors = object_colors([0, 0], CELLS)
    shown = overlay_objects(image, ids, [0, 0], CELLS, alpha=0.5)
    np.testing.assert_array_equal(shown[4, 7], colors[0])  # where they touch
    np.testing.assert_array_equal(shown[4, 8], colors[1])
    np.testing.assert_allclose(shown[4, 4], (90 + colors[0].astype(float)) / 2, atol=0.5)


def test_objects_of_one_class_are_told_apart():
    colors = object_colors([0] * 12, CELLS).astype(int)
    apart = np.abs(colors[:, None] - colors[None]).sum(-1)
    assert apart[np.triu_indices(12, 1)].min() > 30


def test_objects_of_several_classes_stay_near_the_colour_of_their_class():
    colors = object_colors([0] * 8 + [1] * 8 + [2], STREET).astype(int)
    palette = np.array(STREET.palette)
    nearest = np.abs(colors[:, None] - palette).sum(-1).argmin(1)
    assert nearest.tolist() == [0] * 8 + [1] * 8 + [2]
    assert colors[-1].tolist() == list(STREET.palette[2])
