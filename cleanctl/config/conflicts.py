"""Options of `cleanctl conflicts`."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.config.option import Config, option
from cleanctl.config.shared import Loader, loader_option, require_split_name, split_option, workers_option
from cleanctl.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ConflictsConfig(Config):
    """likeness: of registered thumbnails, from which on two images are copies. cosine: of embeddings, the same where
    images cannot be read. least_cosine: of whitened embeddings, below which two images
    are not compared. See docs/conflicts.md."""

    split: str = split_option("The split to look at.")
    against: tuple[str, ...] = option(
        (), "A split that must not share images with it (default: all others); may repeat.", check=require_split_name
    )
    no_leaks: bool = option(False, "Compare the split with no other.")
    likeness: float = option(0.65, "Images so alike are copies.", "Copies", above=0, high=1)
    cosine: float = option(
        0.95, "Where images cannot be read: whitened embeddings so alike are copies.", "Copies", low=0, high=1
    )
    least_cosine: float = option(0.5, "Whitened embeddings less alike are not looked at.", "Copies", low=0, high=1)
    neighbors: int = option(8, "Nearest neighbours to compare each image with.", "Copies", low=1, high=1024)
    placeholder_copies: int = option(
        10, "So many copies under three labels or more are a placeholder.", "Copies", low=2, high=1_000_000
    )
    loader: Loader = loader_option()
    workers: int | None = workers_option()

    def refuse_contradictions(self) -> None:
        if self.no_leaks and self.against:
            raise UsageError("--against was given with --no-leaks.", do="Leave one of them out.")
        if self.split in self.against:
            raise UsageError(
                f"--against names {self.split!r}, the split itself.",
                so="Copies inside the split are always looked for.",
                do="Name another split, or leave it out to compare with all others.",
            )
