"""Datasets: one file each."""

from segfolio.data.datasets.camvid import CamVid
from segfolio.data.datasets.coco_instances import CocoInstances
from segfolio.data.datasets.coco_panoptic import CocoPanoptic
from segfolio.data.datasets.dsb2018 import DSB2018
from segfolio.data.datasets.image_folder import ImageFolder
from segfolio.data.datasets.isbi2012 import ISBI2012
from segfolio.data.datasets.mask_folder import MaskFolder
from segfolio.data.datasets.shapes import Shapes

__all__ = ["DSB2018", "ISBI2012", "CamVid", "CocoInstances", "CocoPanoptic", "ImageFolder", "MaskFolder", "Shapes"]
