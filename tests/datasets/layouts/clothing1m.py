"""Clothing1M: kv files and key lists beside images/ (published code also has the folders 0 … 9 without images/)."""

from __future__ import annotations

from pathlib import Path

from published_copy import Copy, write_image, write_text

NOISY = [(f"images/{number % 3}/0{number % 7}/{number * 37},{number}.jpg", number % 14) for number in range(42)]
# Keys of the clean lists; the noisy label of the first two is known as well, and one of them differs.
CLEAN_TRAIN = [("images/1/01/900,1.jpg", 3, 3), ("images/1/01/900,2.jpg", 9, 4), ("images/1/02/900,3.jpg", 13, 13)]
VAL = [(f"images/2/09/{800 + number}.jpg", number) for number in range(14)]
TEST = [(f"images/0/03/{700 + number}.jpg", number) for number in range(14)]


def write_lists(folder: Path) -> None:
    noisy = NOISY + [(key, label) for key, label, _ in CLEAN_TRAIN[:2]]
    clean = [(key, truth) for key, _, truth in CLEAN_TRAIN] + VAL + TEST
    for name, pairs in (("noisy_label_kv.txt", sorted(noisy)), ("clean_label_kv.txt", clean)):
        write_text(folder / name, "".join(f"{key} {label}\n" for key, label in pairs))
    lists = {"noisy_train": NOISY, "clean_train": CLEAN_TRAIN, "clean_val": VAL, "clean_test": TEST}
    for name, rows in lists.items():
        write_text(folder / f"{name}_key_list.txt", "".join(f"{row[0]}\n" for row in rows))
    names = "T-Shirt Shirt Knitwear Chiffon Sweater Hoodie Windbreaker Jacket Downcoat Suit Shawl Dress Vest Underwear"
    write_text(folder / "category_names_eng.txt", "\r\n".join(names.split()) + "\r\n")


def write_images(folder: Path, prefix: str) -> None:
    for key, label, *_ in (*NOISY, *CLEAN_TRAIN, *VAL, *TEST):
        write_image(folder / key.replace("images/", prefix), label)


def build(folder: Path) -> None:
    write_lists(folder)
    write_images(folder, "images/")


def build_without_images_folder(folder: Path) -> None:
    write_lists(folder / "annotations")
    write_images(folder, "")


def rows(prefix: str) -> dict[str, list]:
    place = {"train": NOISY, "clean_train": CLEAN_TRAIN, "val": VAL, "test": TEST}
    return {split: [(row[0].replace("images/", prefix), *row[1:]) for row in found] for split, found in place.items()}


NAMES = {0: "T-Shirt", 8: "Downcoat", 13: "Underwear"}
COMMON = {
    "dataset": "clothing1m",
    "num_classes": 14,
    "names": NAMES,
    "ordered": ("train", "clean_train", "val", "test"),
}
LISTS = ("noisy_label_kv.txt", "clean_label_kv.txt", "noisy_train_key_list.txt", "clean_val_key_list.txt")
COPIES = [
    Copy(**COMMON, build=build, rows=rows("images/"), annotations=LISTS[1:]),
    Copy(
        **COMMON,
        build=build_without_images_folder,
        rows=rows(""),
        annotations=tuple(f"annotations/{name}" for name in LISTS[1:]),
    ),
]
