"""A learnt detector: T⁺ and T⁻ of each class beside a scale, saved as safetensors, and what it says of rows.

    detector.safetensors    what was learnt (contexts or vectors), T⁺ and T⁻ of the classes, and in its header the
                            model, the tokenizer's fingerprint, the class names and how it was learnt

It loads only beside the model that it was learnt on; a store whose classes have other names is served where contexts
were learnt, which belong to no class, and where every name is known.

Dimensions: C classes, M readable rows, B of a batch, D joint space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cleanctl.adapt.contexts import TextTower
from cleanctl.adapt.model import TextModel, encoder_of
from cleanctl.clip.provenance import EncoderInfo
from cleanctl.clip.tune.learnt_file import Learnt, read_learnt, write_learnt
from cleanctl.config.tune import TuneSettings
from cleanctl.errors import InputError, StoreError
from cleanctl.records import ClassPosterior
from cleanctl.score.blocks import PosteriorWriter
from cleanctl.store import Store

FILE = "detector.safetensors"


@dataclass(frozen=True, kw_only=True)
class Detector:
    """positive_CD, negative_CD: float32 of unit length. scale: exp of the logit scale. agree: see preset.py."""

    positive_CD: Tensor
    negative_CD: Tensor
    scale: float
    agree: bool

    def to(self, device: str) -> Detector:
        return Detector(
            positive_CD=self.positive_CD.to(device),
            negative_CD=self.negative_CD.to(device),
            scale=self.scale,
            agree=self.agree,
        )


class Judgement:
    """What a detector says of the M rows of a split, collected batch by batch."""

    def __init__(self, num_rows: int, *, agree: bool) -> None:
        self._writer = PosteriorWriter(num_rows)
        self.log_odds_M = np.full(num_rows, np.nan, np.float32)
        self.clean_class_M = np.full(num_rows, -1, np.int32) if agree else None

    def put(self, position_B: np.ndarray, image_BD: Tensor, label_B: Tensor, detector: Detector) -> None:
        """image_BD and the detector on one device; label_B int64 there."""
        from cleanctl_kernels import prompt_bank, zeroshot_stats

        count = len(detector.positive_CD)
        class_C = torch.arange(count, device=image_BD.device)
        positive_CD = detector.positive_CD.to(torch.float32)
        bank = prompt_bank(positive_CD, class_C, num_classes=count, temperature=1 / detector.scale, pooling="sum")
        self._writer.put(position_B, zeroshot_stats(image_BD.float().contiguous(), label_B, bank))
        apart_CD = positive_CD - detector.negative_CD.to(torch.float32)
        odds_B = detector.scale * (image_BD.float() * apart_CD[label_B]).sum(dim=1)
        self.log_odds_M[position_B] = odds_B.cpu().numpy()
        if self.clean_class_M is not None:  # p_clean(k) rises with z⁺ − z⁻
            best_B = (image_BD.float() @ apart_CD.T).argmax(dim=1)
            self.clean_class_M[position_B] = best_B.cpu().numpy()

    def save(self) -> dict[str, Tensor]:
        """All arrays, to go on with later."""
        return {name: torch.from_numpy(values) for name, values in self._arrays().items()}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        for name, values in self._arrays().items():
            values[:] = saved[name].cpu().numpy()

    def take(self, part: slice, saved: Mapping[str, np.ndarray]) -> None:
        """What `save` gave of a part of the rows, judged elsewhere."""
        for name, values in self._arrays().items():
            values[part] = saved[name]

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {**vars(self._writer.posterior), "log_odds": self.log_odds_M}
        return arrays if self.clean_class_M is None else arrays | {"clean_class": self.clean_class_M}

    @property
    def posterior(self) -> ClassPosterior:
        return self._writer.posterior

    @property
    def extra(self) -> dict[str, np.ndarray]:
        """The arrays of the score `detector` beside the posterior's."""
        arrays = {"p_clean": torch.from_numpy(self.log_odds_M).sigmoid().numpy(), "log_odds": self.log_odds_M}
        return arrays if self.clean_class_M is None else arrays | {"clean_class": self.clean_class_M}

    def kept(self, label_M: np.ndarray) -> np.ndarray:
        """bool (M,): what `detector.dual` keeps."""
        keep_M: np.ndarray = self.log_odds_M > 0
        return keep_M if self.clean_class_M is None else keep_M & (self.clean_class_M == label_M)


def judge(
    detector: Detector, batches: Iterable[tuple[np.ndarray, Tensor]], label_M: np.ndarray, *, device: str
) -> Judgement:
    """One pass; batches as Features.plain gives them."""
    found, label = Judgement(len(label_M), agree=detector.agree), torch.from_numpy(label_M).to(device)
    here = detector.to(device)
    with torch.inference_mode():
        for position_B, image_BD in batches:
            found.put(position_B, image_BD, label[torch.from_numpy(position_B).to(device)], here)
    return found


# ---- on disk


def save_detector(
    path: Path,
    detector: Detector,
    learnt: Mapping[str, Tensor],
    *,
    encoder: EncoderInfo,
    tokenizer: str,
    classes: tuple[str, ...],
    about: Mapping[str, Any],
    tune: TuneSettings | None,
) -> None:
    """learnt: the parameters by name. about: JSON values, what is tuned among them. tune: how an image tower was."""
    tensors = {f"learnt.{name}": value for name, value in learnt.items()}
    tensors |= {"positive": detector.positive_CD, "negative": detector.negative_CD}
    more = {**about, "scale": detector.scale, "agree": detector.agree}
    write_learnt(path, tensors, Learnt(tune=tune, encoder=encoder, tokenizer=tokenizer, classes=classes, more=more))


def load_detector(path: Path, store: Store, model: TextModel) -> tuple[Detector, dict[str, Any]]:
    """The detector for the classes of `store`, in its order, and how it was learnt.

    Raises StoreError where the store was embedded with another model, or has classes that the detector cannot serve;
    InputError for a file that is absent, damaged or not a detector.
    """
    tensors, learnt = read_learnt(path)
    learnt.require_fit(path, encoder_of(store), learnt.tokenizer, learnt.classes)
    try:
        positive_CD, negative_CD = tensors["positive"], tensors["negative"]
        scale, agree, about = float(learnt.more["scale"]), bool(learnt.more["agree"]), dict(learnt.more)
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(f"{path} holds no detector.", do="Give a file that cleanctl adapt has written.") from exc
    if learnt.classes != store.classes:
        known = {name: place for place, name in enumerate(learnt.classes)}
        if all(name in known for name in store.classes):
            place_C = torch.tensor([known[name] for name in store.classes])
            positive_CD, negative_CD = positive_CD[place_C], negative_CD[place_C]
        else:
            positive_CD, negative_CD = _of_other_classes(path, tensors, learnt, store, model)
    return Detector(positive_CD=positive_CD, negative_CD=negative_CD, scale=scale, agree=agree), about


def _of_other_classes(
    path: Path, tensors: Mapping[str, Tensor], learnt: Learnt, store: Store, model: TextModel
) -> tuple[Tensor, Tensor]:
    """T⁺ and T⁻ of classes that the detector never saw, from its contexts."""
    contexts = [tensors.get(f"learnt.{kind}_context") for kind in ("positive", "negative")]
    if contexts[0] is None or contexts[1] is None:
        unknown = [name for name in store.classes if name not in learnt.classes]
        raise StoreError(
            f"{path} learnt vectors of {len(learnt.classes)} classes; {store.path} has {len(unknown)} others, "
            f"{', '.join(unknown[:3])}{' …' if len(unknown) > 3 else ''}.",
            do="Learn a detector on this store, or apply one of --tune prompts, which serves any class.",
        )
    model.require_tokenizer(path, learnt)
    tower = TextTower(model.network, model.tokenizer, store.classes, tokens=len(contexts[0]))
    with torch.inference_mode():
        positive_CD, negative_CD = (tower.embed(one.to(model.device)).cpu() for one in contexts if one is not None)
    return positive_CD, negative_CD
