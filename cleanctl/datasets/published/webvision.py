"""mini-WebVision: info/train_filelist_google.txt and info/val_filelist.txt (`path label`), the first 50 classes."""

from __future__ import annotations

from cleanctl.datasets.adapter import DatasetAdapter, DatasetRequest
from cleanctl.datasets.published.lists import listed_dataset, read_pairs, root_of
from cleanctl.errors import InputError
from cleanctl.records import Dataset

CLASSES = 50
VAL_FOLDER = "val_images_256"


class MiniWebVision(DatasetAdapter):
    def open(self, request: DatasetRequest) -> Dataset:
        root = root_of(request, "mini-webvision")
        if request.classes is None:
            raise InputError(
                "The file lists of mini-WebVision name no classes.",
                so="Prompts need the classes' names.",
                do="Give --classes FILE with the first 50 names, one a line, in label order.",
            )
        train = read_pairs(root / "info/train_filelist_google.txt")
        val = [(f"{VAL_FOLDER}/{key}", label) for key, label in read_pairs(root / "info/val_filelist.txt")]
        pairs = {
            split: [pair for pair in found if pair[1] < CLASSES] for split, found in (("train", train), ("val", val))
        }
        return listed_dataset(request, "mini-webvision", request.classes[:CLASSES], pairs, ordered=True)
