"""CUB-200-2011: the five lists with Unix line ends, images in folders by class; attributes/ and parts/ left out."""

from pathlib import Path

from published_copy import Copy, write_image, write_text

# id, file, class, training
IMAGES = [
    (1, "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg", 1, 0),
    (2, "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg", 1, 1),
    (3, "001.Black_footed_Albatross/Black_Footed_Albatross_0002_55.jpg", 1, 1),
    (4, "002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg", 2, 1),
    (5, "002.Laysan_Albatross/Laysan_Albatross_0001_545.jpg", 2, 0),
    (6, "002.Laysan_Albatross/Laysan_Albatross_0020_2.jpg", 2, 1),
    (7, "003.Northern_Waterthrush/Northern_Waterthrush_0001_2.jpg", 3, 1),
    (8, "003.Northern_Waterthrush/Northern_Waterthrush_0005_9.jpg", 3, 0),
    (9, "003.Northern_Waterthrush/Northern_Waterthrush_0004_9.jpg", 3, 1),
]


def build(folder: Path) -> None:
    columns = {"images": 1, "image_class_labels": 2, "train_test_split": 3}
    for name, at in columns.items():
        write_text(folder / f"{name}.txt", "".join(f"{row[0]} {row[at]}\n" for row in IMAGES))
    classes = {number: file.partition("/")[0] for _, file, number, _ in IMAGES}
    write_text(folder / "classes.txt", "".join(f"{number} {name}\n" for number, name in classes.items()))
    write_text(folder / "bounding_boxes.txt", "1 60.0 27.0 325.0 304.0\n")
    for _, file, number, _ in IMAGES:
        write_image(folder / "images" / file, number)


COPIES = [
    Copy(
        dataset="cub-200-2011",
        build=build,
        rows={
            split: [(f"images/{file}", number - 1) for _, file, number, training in IMAGES if training == wanted]
            for split, wanted in (("train", 1), ("test", 0))
        },
        num_classes=3,
        names={0: "Black footed Albatross", 2: "Northern Waterthrush"},
        ordered=("train", "test"),
        annotations=("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"),
    )
]
