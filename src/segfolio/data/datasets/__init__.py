"""Datasets: one file each."""

from segfolio.data.datasets.ade20k import ADE20K
from segfolio.data.datasets.ade20k_full import ADE20KFull
from segfolio.data.datasets.camvid import CamVid
from segfolio.data.datasets.cityscapes import Cityscapes
from segfolio.data.datasets.coco_instances import CocoInstances
from segfolio.data.datasets.coco_panoptic import CocoPanoptic
from segfolio.data.datasets.coco_stuff import COCOStuff10k, COCOStuff164k
from segfolio.data.datasets.davis2017 import DAVIS2017
from segfolio.data.datasets.dsb2018 import DSB2018
from segfolio.data.datasets.image_folder import ImageFolder
from segfolio.data.datasets.isbi2012 import ISBI2012
from segfolio.data.datasets.kitti import KITTI
from segfolio.data.datasets.lvis import LVIS
from segfolio.data.datasets.mapillary_vistas import MapillaryVistas
from segfolio.data.datasets.mask_folder import MaskFolder
from segfolio.data.datasets.mose import MOSE
from segfolio.data.datasets.moving_shapes import MovingShapes
from segfolio.data.datasets.nyud import NYUD
from segfolio.data.datasets.oxford_pet import OxfordPet
from segfolio.data.datasets.pascal_context import PascalContext
from segfolio.data.datasets.penn_fudan import PennFudan
from segfolio.data.datasets.sa1b import SA1B
from segfolio.data.datasets.sav import SAV
from segfolio.data.datasets.sbd import SBD
from segfolio.data.datasets.shapes import Shapes
from segfolio.data.datasets.sun_rgbd import SUNRGBD
from segfolio.data.datasets.video_folder import VideoFolder
from segfolio.data.datasets.voc import VOC
from segfolio.data.datasets.youtube_vos import YouTubeVOS

__all__ = [
    "ADE20K",
    "DAVIS2017",
    "DSB2018",
    "ISBI2012",
    "KITTI",
    "LVIS",
    "MOSE",
    "NYUD",
    "SA1B",
    "SAV",
    "SBD",
    "SUNRGBD",
    "VOC",
    "ADE20KFull",
    "COCOStuff10k",
    "COCOStuff164k",
    "CamVid",
    "Cityscapes",
    "CocoInstances",
    "CocoPanoptic",
    "ImageFolder",
    "MapillaryVistas",
    "MaskFolder",
    "MovingShapes",
    "OxfordPet",
    "PascalContext",
    "PennFudan",
    "Shapes",
    "VideoFolder",
    "YouTubeVOS",
]
