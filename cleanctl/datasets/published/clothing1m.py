"""Clothing1M: noisy_label_kv.txt and clean_label_kv.txt (`path label`), *_key_list.txt (the splits)."""

from __future__ import annotations

from cleanctl.datasets.adapter import DatasetAdapter, DatasetRequest
from cleanctl.datasets.published.lists import listed_dataset, read_lines, read_pairs, root_of
from cleanctl.errors import InputError
from cleanctl.records import Dataset

CLASSES = (
    "T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket", "Downcoat", "Suit",
    "Shawl", "Dress", "Vest", "Underwear",
)  # fmt: skip


class Clothing1M(DatasetAdapter):
    def open(self, request: DatasetRequest) -> Dataset:
        root = root_of(request, "clothing1m")
        noisy = dict(read_pairs(root / "noisy_label_kv.txt"))
        clean = dict(read_pairs(root / "clean_label_kv.txt"))
        lists = {
            "train": ("noisy_train_key_list.txt", noisy),
            "val": ("clean_val_key_list.txt", clean),
            "test": ("clean_test_key_list.txt", clean),
        }
        pairs = {}
        for split, (file, labels) in lists.items():
            keys = [line.strip() for line in read_lines(root / file) if line.strip()]
            unlabelled = [key for key in keys if key not in labels]
            if unlabelled:
                raise InputError(
                    f"{len(unlabelled)} keys of {file} have no label, e.g. {unlabelled[0]!r}.",
                    do="Bring the label file that belongs to the list.",
                )
            pairs[split] = [(key, labels[key]) for key in keys]
        known = sum(key in clean for key, _ in pairs["train"])
        notes = (f"{known:,} training images also have a clean label, which is not used.",) if known else ()
        return listed_dataset(request, "clothing1m", request.classes or CLASSES, pairs, ordered=True, notes=notes)
