"""Exact nearest neighbours among rows that lie on the device, for CUDA and, to test it, torch's own CPU.

In: Float32Blocks on a device of torch. Out: (rows, (B, count) int64 row numbers on the device), nearest first, of rows
alike the lower number first. The rows stay on the device as they are stored, float16. Candidates are found by products
in tf32, which holds a float16 exactly: each product is exact, only its sum is rounded, by at most ROUNDING a dimension.
Count and a margin of them are ranked again by sums in float64, which are exact: a product of two float16 is a multiple
of 2⁻⁴⁸. Whatever was no candidate is at most as near as the last one; a row for which that does not exclude it from the
first `count` is searched again in float64, so the result is that of exact search, ties included, on every device.
Memory: the rows, and TILE_BYTES of products. Leaves nothing on disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cleanctl.score.blocks import Float32Blocks
from cleanctl.score.solvers import coarse_products

if TYPE_CHECKING:
    import torch

Batches = Iterator[tuple[slice, "torch.Tensor"]]

BASE_ROWS = 65_536
TILE_BYTES = {"cpu": 16 << 20, "cuda": 2 << 30}  # of products, and of candidates that are ranked again
ROUNDING = 2.0**-23  # a sum of D products of rows of length 1, which tensor cores cut, is off by at most D times that
SHARE_OF_FREE = 0.5  # of the device's memory, for the rows


class Resident:
    """image_ND: all rows, on the device."""

    def __init__(self, image_ND: torch.Tensor) -> None:
        import torch

        self.image_ND, self._kind = image_ND, image_ND.device.type
        self._exact_products = image_ND.dtype == torch.float16

    def batches(self, count: int, part: slice) -> Batches:
        """count: at most N, the row itself among them."""
        number = min(count + max(32, count // 4), len(self.image_ND))
        base = min(BASE_ROWS, len(self.image_ND))
        step = max(1, TILE_BYTES[self._kind] // (4 * base))
        for start in range(part.start, part.stop, step):
            rows = slice(start, min(start + step, part.stop))
            near_BM, number_BM = self._candidates(rows, number)
            yield rows, self._ranked(rows, near_BM, number_BM, count)

    def _candidates(self, rows: slice, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, M) cosines, rounded, falling, and whose they are."""
        import torch

        query_BD = self.image_ND[rows].float()
        found: tuple[torch.Tensor, torch.Tensor] | None = None
        for start in range(0, len(self.image_ND), BASE_ROWS):
            base = self.image_ND[start : start + BASE_ROWS].float()
            near_BN = self._products(query_BD, base)
            near_BM, number_BM = near_BN.topk(min(number, len(base)), dim=1)
            number_BM += start
            if found is not None:
                near_BM, number_BM = torch.cat([found[0], near_BM], dim=1), torch.cat([found[1], number_BM], dim=1)
                near_BM, place_BM = near_BM.topk(min(number, near_BM.shape[1]), dim=1)
                number_BM = number_BM.gather(1, place_BM)
            found = near_BM, number_BM
        assert found is not None, "no rows"
        return found

    def _products(self, query_BD: torch.Tensor, base_ND: torch.Tensor) -> torch.Tensor:
        if not self._exact_products:
            return query_BD @ base_ND.T
        with coarse_products():
            return query_BD @ base_ND.T

    def _ranked(self, rows: slice, near_BM: torch.Tensor, number_BM: torch.Tensor, count: int) -> torch.Tensor:
        """(B, count): the candidates by their exact cosines; rows that candidates leave open searched again."""
        import torch

        dim, parts, lowest = self.image_ND.shape[1], [], []
        step = max(1, TILE_BYTES[self._kind] // (10 * dim * number_BM.shape[1]))
        for start in range(0, len(number_BM), step):
            few = number_BM[start : start + step].sort(dim=1).values  # so that of rows alike the lower number is first
            query_BD = self.image_ND[rows.start + start : rows.start + start + len(few)].double()
            exact_BM = (self.image_ND[few].double() @ query_BD[:, :, None])[:, :, 0]
            near, place = exact_BM.sort(dim=1, descending=True, stable=True)
            parts.append(few.gather(1, place[:, :count]))
            lowest.append(near[:, count - 1])
        number_BK = torch.cat(parts)
        if number_BM.shape[1] < len(self.image_ND):
            open_B = torch.cat(lowest) <= near_BM[:, -1].double() + ROUNDING * dim
            again = open_B.nonzero()[:, 0]
            if len(again):
                number_BK[again] = self._searched_again(again + rows.start, count)
        return number_BK

    def _searched_again(self, row_B: torch.Tensor, count: int) -> torch.Tensor:
        """(B, count): all rows in float64."""
        import torch

        step = max(1, TILE_BYTES[self._kind] // (32 * min(BASE_ROWS, len(self.image_ND))))
        parts = []
        for first in range(0, len(row_B), step):
            query_BD = self.image_ND[row_B[first : first + step]].double()
            near = query_BD.new_empty(len(query_BD), 0)
            number = row_B.new_empty(len(query_BD), 0)
            for start in range(0, len(self.image_ND), BASE_ROWS):
                base = self.image_ND[start : start + BASE_ROWS].double()
                fresh = torch.arange(start, start + len(base), device=row_B.device).expand(len(query_BD), -1)
                near, number = torch.cat([near, query_BD @ base.T], dim=1), torch.cat([number, fresh], dim=1)
                near, place = near.sort(dim=1, descending=True, stable=True)  # what came earlier has lower numbers
                near, number = near[:, :count], number.gather(1, place[:, :count])
            parts.append(number)
        return torch.cat(parts)


def open_resident(data: Float32Blocks) -> Resident | None:
    """All rows on the device, or None where they take more than their share of its free memory."""
    import torch

    if 2 * data.num_rows * data.dim > SHARE_OF_FREE * _free_bytes(data.device):
        return None
    image_ND: torch.Tensor | None = None

    def keep(rows: slice, image: torch.Tensor) -> None:
        nonlocal image_ND
        if image_ND is None:
            image_ND = torch.empty(data.num_rows, data.dim, dtype=image.dtype, device=image.device)
        image_ND[rows] = image

    for _ in data.map(keep, stored=True):
        pass
    assert image_ND is not None, "no rows"
    return Resident(image_ND)


def _free_bytes(device: str) -> float:
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else math.inf


def counted_votes(voted_BK: torch.Tensor, counts_BK: torch.Tensor, num_classes: int) -> torch.Tensor:
    """(B, C) float32: how many of a row's neighbours have each label; counts_BK: bool, who has a vote."""
    import torch

    votes_BC = torch.zeros(len(voted_BK), num_classes, device=voted_BK.device)
    return votes_BC.scatter_add_(1, voted_BK, counts_BK.float())
