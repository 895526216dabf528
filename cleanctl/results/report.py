"""What `report` returns."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class ReportResult(Result):
    """out: the HTML file, of `bytes`. table: the Parquet file beside it. samples: rows of the split; shown: of them in
    the page's table. images: in the page or in image_folder; images_missing: wanted and not readable. sections: ids.
    """

    out: str
    bytes: int
    split: str
    selection: str
    against: str | None
    samples: int
    shown: int
    images: int
    images_missing: int
    image_folder: str | None
    runs: tuple[str, ...]
    sections: tuple[str, ...]
    notes: tuple[str, ...]
    table: str | None = None
