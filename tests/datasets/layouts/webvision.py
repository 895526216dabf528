"""WebVision 1.0: lists in info/, google/ and flickr/ by query, val_images_256/, and ILSVRC2012's validation images in
the two layouts in use. The lists keep the spaces that end some of their lines.
"""

from __future__ import annotations

from pathlib import Path

from published_copy import Copy, write_image, write_text

GOOGLE = [(f"google/q{1 + label:04d}/{name}.jpg", label) for label in (0, 1, 49) for name in ("zX_9", "aB-3", "k0")]
LATER = [("google/q0051/pYt.jpg", 50), ("google/q1632/4fa.jpg", 999)]
FLICKR = [("flickr/q0001/8122.jpg", 0), ("flickr/q1632/77.jpg", 999)]
VAL = [("val000004.jpg", 1), ("val000002.jpg", 0), ("val000009.jpg", 49), ("val000003.jpg", 999)]
FIRST, LAST = "n01440764", "n15075141"


def write_common(folder: Path) -> None:
    for name, rows in (("google", GOOGLE + LATER), ("flickr", FLICKR)):
        lines = [f"{key} {label}" for key, label in rows]
        write_text(folder / f"info/train_filelist_{name}.txt", " \n".join(lines) + "\n")
    write_text(folder / "info/val_filelist.txt", "".join(f"{file} {label}\n" for file, label in VAL))
    for key, label in GOOGLE:
        write_image(folder / key, label)
    for file, label in VAL:
        write_image(folder / "val_images_256" / file, label)


def build_mini(folder: Path) -> None:
    """What most papers download: the folders of the first fifty classes; ILSVRC2012 by number."""
    write_common(folder)
    for number in range(50):
        write_image(folder / f"imagenet/val/{number}/ILSVRC2012_val_{number:08d}.JPEG", number)


def build_full(folder: Path) -> None:
    """All of Google and Flickr, without ILSVRC2012."""
    build_google(folder)
    for key, label in FLICKR:
        write_image(folder / key, label)


def build_google(folder: Path) -> None:
    """All of Google, which two datasets are read from."""
    write_common(folder)
    for key, label in LATER:
        write_image(folder / key, label)


def val(below: int) -> list:
    return [(f"val_images_256/{file}", label) for file, label in VAL if label < below]


ILSVRC = [(f"imagenet/val/{number}/ILSVRC2012_val_{number:08d}.JPEG", number) for number in range(50)]
MINI = {"dataset": "mini-webvision", "num_classes": 50, "ordered": ("train", "val")}
MINI_NAMES = {0: "tench", 7: "cock animal", 15: "robin bird", 21: "kite bird", 27: "eft newt", 49: "African crocodile"}
FULL = {"dataset": "webvision", "num_classes": 1000, "ordered": ("train", "val")}
FULL_NAMES = {
    0: "tench",
    7: "rooster",
    21: "kite (bird of prey)",
    657: "missile",
    744: "projectile",
    999: "toilet paper",
}
LISTS = ("info/val_filelist.txt",)
COPIES = [
    Copy(
        **MINI,
        names=MINI_NAMES,
        build=build_mini,
        rows={"train": GOOGLE, "val": val(50), "ilsvrc": ILSVRC},
        annotations=LISTS,
    ),
    Copy(**MINI, names=MINI_NAMES, build=build_google, rows={"train": GOOGLE, "val": val(50)}, rivals=("webvision",)),
    Copy(
        **FULL,
        names=FULL_NAMES,
        build=build_full,
        rows={"train": GOOGLE + LATER + FLICKR, "val": val(1000)},
        annotations=(*LISTS, "info/train_filelist_flickr.txt"),
    ),
    Copy(
        **FULL,
        names=FULL_NAMES,
        build=build_google,
        rows={"train": GOOGLE + LATER, "val": val(1000)},
        variant="google",
        rivals=("mini-webvision",),
    ),
]
