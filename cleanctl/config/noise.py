"""The language of `--noise`: labels that a seed draws, or label sets that others published."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.errors import UsageError
from cleanctl.meant import meant

DRAWN = ("symmetric", "symmetric-deft", "asymmetric", "pair", "superclass", "str", "idn")  # KIND:RATE
HUMAN_SETS = ("aggre", "random1", "random2", "random3", "worse", "noisy")  # the last of CIFAR-100N, the others of 10N
_FORMS = {"human": "SET", "seal": "RATE", "csv": "FILE", "json": "FILE"}
NOISE_KINDS = (*DRAWN, *_FORMS)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A parsed `--noise`. rate: the share of samples that are drawn, 0…1, where the kind has one. name: the label set
    of `human`, or the file of `csv` and `json`."""

    kind: str
    rate: float = 0.0
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name or f'{self.rate:g}'}"

    @property
    def drawn(self) -> bool:
        """Whether a seed draws it; else it is read from a file."""
        return self.kind in DRAWN

    @classmethod
    def parse(cls, text: str) -> Noise:
        """`symmetric:0.4`, `human:worse`, `csv:labels.csv` → Noise. UsageError quotes the part it cannot read."""
        kind, colon, rest = text.partition(":")
        if kind not in NOISE_KINDS:
            raise UsageError(
                f"--noise {text!r} names the kind {kind!r}{meant(kind, NOISE_KINDS)}",
                do=f"Give one of: {', '.join(_written(kind) for kind in NOISE_KINDS)}; e.g. symmetric:0.4.",
            )
        form = _FORMS.get(kind, "RATE")
        if form == "RATE":
            return cls(kind=kind, rate=_rate(text, kind, rest if colon else ""))
        if not rest:
            raise UsageError(f"--noise {text!r} has no {form.lower()}.", do=f"Write it as {kind}:{form}.")
        if kind == "human" and rest not in HUMAN_SETS:
            raise UsageError(
                f"--noise {text!r} names the label set {rest!r}{meant(rest, HUMAN_SETS)}",
                do=f"Give one of: {', '.join(HUMAN_SETS[:-1])} for CIFAR-10, {HUMAN_SETS[-1]} for CIFAR-100.",
            )
        return cls(kind=kind, name=rest)


def _rate(text: str, kind: str, number: str) -> float:
    example = f"Write it as KIND:RATE, e.g. {kind}:0.4."
    if not number:
        raise UsageError(f"--noise {text!r} has no rate.", do=example)
    try:
        rate = float(number)
    except ValueError:
        raise UsageError(f"--noise {text!r}: the rate {number!r} is not a number.", do=example) from None
    if not 0.0 <= rate <= 1.0:
        raise UsageError(f"--noise {text!r}: the rate is {rate:g}.", do="Give a share from 0 to 1.")
    return rate


def _written(kind: str) -> str:
    return f"{kind}:{_FORMS.get(kind, 'RATE')}"
