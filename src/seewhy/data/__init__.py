"""Data: photographs as the model sees them, and data sets of many formats, read one picture at a time."""

from __future__ import annotations

from seewhy.data.cifar10 import cifar10
from seewhy.data.fetch import cached, get
from seewhy.data.folders import folder, photos
from seewhy.data.hub import hugging_face
from seewhy.data.images import Geometry, Images, Preprocess
from seewhy.data.isic import ham10000
from seewhy.data.load import load
from seewhy.data.masks import masks
from seewhy.data.med import medmnist
from seewhy.data.photo import from_array, open_photo, original, read
from seewhy.data.sets import DataSet, Item
from seewhy.data.tables import table

__all__ = [
    "DataSet",
    "Geometry",
    "Images",
    "Item",
    "Preprocess",
    "cached",
    "cifar10",
    "folder",
    "from_array",
    "get",
    "ham10000",
    "hugging_face",
    "load",
    "masks",
    "medmnist",
    "open_photo",
    "original",
    "photos",
    "read",
    "table",
]
