"""Red mini-ImageNet (Controlled Noisy Web Labels): mini-ImageNet with a share of its images taken from the web.

    mini-imagenet-annotations.json       each web image: its id, the class that was searched, whether that is right
    split/red_noise_nl_0.4               `file label` a line, a file a noise level; the level is `--variant 0.4`
    split/clean_validation               the same for the validation images, which are the split `val`
    all_images/<file>                    the images of every level
    all_validation/<file>                or validation/<label>/<file>

The archive has all but the annotations in mini-imagenet/, and either folder is taken. Labels follow class_name.txt,
whose synsets are SYNSETS. What is true: a mini-ImageNet file carries its synset in its name; a web image is right or
wrong as the annotations say, and what a wrong one shows nobody knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cleanctl.datasets.adapter import DatasetRequest
from cleanctl.datasets.columns import UNKNOWN
from cleanctl.datasets.published.lists import Home, Pairs, PublishedDataset, choose, class_names, listed_dataset
from cleanctl.errors import InputError
from cleanctl.records import KNOWN_WRONG, Dataset

ANNOTATIONS = "mini-imagenet-annotations.json"
BELOW = "mini-imagenet/"
LEVELS = re.compile(r"red_noise_nl_(\d\.\d+)")

# Synset and name of each class in label order; 65 is an ear of corn, which the published prompts take for the organ.
SYNSETS = """\
n01704323 triceratops
n04515003 upright piano
n02101006 gordon setter
n03062245 cocktail shaker
n04509417 unicycle
n03854065 organ
n02110063 malamute
n03998194 prayer rug
n02111277 newfoundland
n04443257 tobacco shop
n02165456 ladybug
n03075370 combination lock
n02747177 ashcan
n01558993 robin
n04149813 scoreboard
n03220513 dome
n03584254 ipod
n04243546 slot
n03770439 miniskirt
n02108915 french bulldog
n02971356 carton
n02108551 tibetan mastiff
n03908618 pencil box
n01981276 king crab
n03535780 horizontal bar
n04275548 spider web
n03272010 electric guitar
n02138441 meerkat
n03337140 file
n07584110 consomme
n01910747 jellyfish
n03146219 cuirass
n02443484 black-footed ferret
n04146614 school bus
n02113712 miniature poodle
n02981792 catamaran
n04251144 snorkel
n03838899 oboe
n04604644 worm fence
n02116738 african hunting dog
n02099601 golden retriever
n02966193 carousel
n02687172 aircraft carrier
n03924679 photocopier
n02120079 arctic fox
n03476684 hair slide
n04435653 tile roof
n02091244 ibizan hound
n01843383 toucan
n01532829 house finch
n03980874 poncho
n07613480 trifle
n03544143 hourglass
n03347037 fire screen
n02114548 white wolf
n06794110 street sign
n04258138 solar dish
n02606052 rock beauty
n02105505 komondor
n02871525 bookshop
n03127925 crate
n04418357 theater curtain
n04389033 tank
n02074367 dugong
n02110341 dalmatian
n13133613 ear
n03773504 missile
n13054560 bolete
n07747607 orange
n04522168 vase
n02089867 walker hound
n02129165 lion
n02457408 three-toed sloth
n03676483 lipstick
n09256479 coral reef
n04067472 reel
n02823428 beer bottle
n01749939 green mamba
n03400231 frying pan
n04596742 wok
n01855672 goose
n02174001 rhinoceros beetle
n04612504 yawl
n03047690 clog
n02091831 saluki
n03017168 chime
n04296562 stage
n02108089 boxer
n09246464 cliff
n02219486 ant
n02950826 cannon
n01770081 harvestman
n03775546 mixing bowl
n01930112 nematode
n03888605 parallel bars
n03417042 garbage truck
n03527444 holster
n02795169 barrel
n07697537 hotdog
n03207743 dishrag
"""
CLASSES = tuple(line.partition(" ")[2] for line in SYNSETS.splitlines())
_NUMBER = {line.partition(" ")[0]: number for number, line in enumerate(SYNSETS.splitlines())}


class RedMiniImageNet(PublishedDataset):
    name = "red-mini-imagenet"
    origin = "dataset_no_images.zip of Controlled Noisy Web Labels"
    takes = ("--classes", "--variant")

    def is_at(self, root: Path) -> bool:
        return bool(_levels(root / "split") or _levels(root / BELOW / "split"))

    def read(self, home: Home, request: DatasetRequest) -> Dataset:
        below = "" if (home.root / "split").is_dir() or not (home.root / BELOW / "split").is_dir() else BELOW
        levels = _levels(home.root / below / "split")
        if not levels:
            raise home.missing("split/red_noise_nl_0.2", "the files and labels of one noise level")
        level = choose(request, self.name, dict.fromkeys(levels, ""))
        train = home.pairs(f"{below}split/red_noise_nl_{level}", "the files and labels of one noise level")
        clean = home.pairs(f"{below}split/clean_validation", "the files and labels of the validation images")
        web = _annotations(home)
        folder = home.require_folder(f"{below}all_images", "the images of every noise level")
        truth = {f"{folder}/{file}": _truth(file, label, web) for file, label in train}
        pairs = {
            "train": [(f"{folder}/{file}", label) for file, label in train],
            "val": list(_validation(home, below, clean)),
        }
        wrong = sum(true == KNOWN_WRONG for true in truth.values())
        return listed_dataset(
            request,
            self.name,
            class_names(request, CLASSES),
            pairs,
            ordered=pairs,
            truth={"train": truth},
            variant=level,
            notes=(
                f"Red mini-ImageNet at noise level {level}: {wrong:,} of {len(train):,} training labels are known "
                "to be wrong, though not what is right.",
            ),
        )


def _levels(folder: Path) -> list[str]:
    found = (LEVELS.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(match[1] for match in found if match)


def _validation(home: Home, below: str, clean: Pairs) -> Iterator[tuple[str, int]]:
    """Keys and labels, in the layout of the two that is there."""
    flat, grouped = f"{below}all_validation", f"{below}validation"
    if not (home.root / flat).is_dir() and not (home.root / grouped).is_dir():
        raise home.missing(f"{flat}/", f"the validation images; {grouped}/<label>/ will do")
    for file, label in clean:
        yield f"{flat}/{file}" if (home.root / flat).is_dir() else f"{grouped}/{label}/{file}", label


def _annotations(home: Home) -> dict[str, tuple[int, bool]]:
    """Id of a web image → the class it was searched as, and whether that is right."""
    root = home.root.parent if home.root.name == BELOW[:-1] and not (home.root / ANNOTATIONS).is_file() else home.root
    path = root / ANNOTATIONS
    try:
        images = json.loads(path.read_bytes())["data"]
        return dict(_web_image(image) for (image,) in images)
    except FileNotFoundError as exc:
        raise home.missing(ANNOTATIONS, "which web images show what they were searched as") from exc
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise InputError(
            f"{str(path)!r} cannot be read: {exc!r}; {{'data': [[{{'image/id': …}}], …]}} was expected.",
            do=f"Take the file again from {home.origin}.",
        ) from exc


def _web_image(image: Mapping[str, Any]) -> tuple[str, tuple[int, bool]]:
    return str(image["image/id"]), (int(image["image/class/label"]), bool(int(image["image/class/label/is_clean"])))


def _truth(file: str, label: int, web: Mapping[str, tuple[int, bool]]) -> int:
    """The true class of a training image; KNOWN_WRONG, or UNKNOWN where nothing is said of it."""
    stem = file.rpartition(".")[0]
    if stem in web:
        searched, right = web[stem]
        return searched if right else KNOWN_WRONG if searched == label else UNKNOWN
    return _NUMBER.get(file[:9], UNKNOWN)
