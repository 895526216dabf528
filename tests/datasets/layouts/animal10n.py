"""ANIMAL-10N: training/ and testing/, `<label>_<id>.jpg`; the archive has nothing else."""

from pathlib import Path

from published_copy import Copy, write_image

TRAIN = [("training/0_10021.jpg", 0), ("training/0_7.jpg", 0), ("training/4_33.jpg", 4), ("training/5_12.jpg", 5)]
TRAIN += [(f"training/{label}_{100 + number}.jpg", label) for label in range(10) for number in range(2)]
TEST = [(f"testing/{label}_{number}.jpg", label) for label in range(10) for number in (3, 20)]


def build(folder: Path) -> None:
    for key, label in TRAIN + TEST:
        write_image(folder / key, label, size=64)


COPIES = [
    Copy(
        dataset="animal10n",
        build=build,
        rows={"train": TRAIN, "test": TEST},
        num_classes=10,
        names={0: "cat", 4: four, 5: five, 9: "guinea pig"},
        variant=variant,
    )
    for variant, four, five in ((None, "jaguar", "cheetah"), ("cheetah-jaguar", "cheetah", "jaguar"))
]
