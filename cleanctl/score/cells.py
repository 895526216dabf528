"""Rows in cells around the centres of k-means, and the nearest rows to a query among those of the cells it visits.

    cell of x = argmax_c  x · centre_c - ½ ‖centre_c‖²,  which is the nearest centre

In: Float32Blocks of one part of the rows; all parts place the same centres. Out: `Lists`, the part's rows in float16 in
the order of their cells, and the highest cosines among them. Queries are taken many at a time and cell by cell, so that
a cell's rows are compared with all who visit it in one matrix product: on a CPU that costs a twelfth of comparing row
by row. Every step is the same for any number of threads, to the last bit. Leaves nothing on disk.

Legend: N rows of all parts, M of this one, S of the sample, C cells, P cells visited, B queries, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from cleanctl_kernels.threads import in_threads

from cleanctl.score.blocks import Float32Blocks, widen
from cleanctl.score.neighbors import Found
from cleanctl.score.scorer import Reduce

ROWS_PER_CELL = 48  # of the sample that places a cell's centre
MAX_CELLS = 16_384
ITERATIONS = 10
RESERVE = 8  # a row for so many cells, to start cells again that no row is nearest to
SEED = 1234
TILE_ROWS = 1_024  # that are compared with all centres at once
PIECE_ROWS = 512  # of a cell, and queries, that are compared at once
LAST_NUMBER = 0xFFFFFFFF  # rows are numbered below it
NOTHING = np.iinfo(np.int64).min


def number_of_cells(rows: int) -> int:
    """4 √N, of ROWS_PER_CELL rows at least."""
    return max(1, min(int(4 * rows**0.5), rows // ROWS_PER_CELL, MAX_CELLS))


@dataclass(frozen=True, kw_only=True)
class Centres:
    """centre_CD, half_C: float32, the centres and half of their squared lengths."""

    centre_CD: np.ndarray
    half_C: np.ndarray

    @classmethod
    def at(cls, centre_CD: np.ndarray) -> Centres:
        centre_CD = np.ascontiguousarray(centre_CD, np.float32)
        return cls(centre_CD=centre_CD, half_C=np.einsum("cd,cd->c", centre_CD, centre_CD) / 2)

    def __len__(self) -> int:
        return len(self.centre_CD)

    def nearness(self, query_BD: np.ndarray) -> np.ndarray:
        """(B, C) float32, higher is nearer."""
        near_BC = query_BD @ self.centre_CD.T
        near_BC -= self.half_C
        return near_BC

    def nearest(self, query_BD: np.ndarray) -> np.ndarray:
        """(B,) int32: each row's cell."""
        cell_B = np.empty(len(query_BD), np.int32)
        for tile in _tiles(0, len(query_BD)):
            cell_B[tile] = self.nearness(query_BD[tile]).argmax(axis=1)
        return cell_B

    def visited(self, query_BD: np.ndarray, probes: int) -> np.ndarray:
        """(B, P) int32: the `probes` nearest cells of each, in no order."""
        cell_BP = np.empty((len(query_BD), min(probes, len(self))), np.int32)
        if probes >= len(self):
            cell_BP[:] = np.arange(len(self))
            return cell_BP
        for tile in _tiles(0, len(query_BD)):
            cell_BP[tile] = np.argpartition(-self.nearness(query_BD[tile]), probes - 1, axis=1)[:, :probes]
        return cell_BP


def _tiles(first: int, stop: int, size: int = TILE_ROWS) -> Iterator[slice]:
    return (slice(start, min(start + size, stop)) for start in range(first, stop, size))


# ---- where the centres are


def place_centres(data: Float32Blocks, num_rows: int, reduce: Reduce) -> Centres:
    """k-means of Lloyd on every n-th of all rows, from a fixed seed. data: this part's rows; num_rows: N."""
    cells = number_of_cells(num_rows)
    step = max(1, num_rows // (ROWS_PER_CELL * cells))
    sample_SD, own_S = every(data, step)
    drawn_R = np.random.default_rng(SEED).permutation(-(-num_rows // step))[: cells + max(1, cells // RESERVE)]
    centres, reserve_RD = _drawn(sample_SD, own_S // step, drawn_R, cells, reduce)
    for _ in range(ITERATIONS):
        sum_CD, count_C = _sums(sample_SD, centres)
        sum_CD, count_C = reduce.sum(sum_CD), reduce.sum(count_C)
        empty_C = np.flatnonzero(count_C == 0)
        sum_CD /= np.maximum(count_C, 1)[:, None]
        sum_CD[empty_C] = np.resize(reserve_RD, (len(empty_C), reserve_RD.shape[1]))
        reserve_RD = np.roll(reserve_RD, -len(empty_C), axis=0)
        centres = Centres.at(sum_CD)
    return centres


def every(data: Float32Blocks, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Of this part every step-th row, counted over all parts: float16 (S, D) and its number (S,)."""
    parts = [np.zeros((0, data.dim), np.float16)]
    for rows, image in data:
        parts.append(image[-(data.first + rows.start) % step :: step].astype(np.float16))
    found_SD = np.concatenate(parts)
    return found_SD, -(-data.first // step) * step + step * np.arange(len(found_SD))


def _drawn(
    sample_SD: np.ndarray, place_S: np.ndarray, drawn_R: np.ndarray, cells: int, reduce: Reduce
) -> tuple[Centres, np.ndarray]:
    """Rows of the sample by their places in the sample of all parts: the first `cells` of them, and the rest."""
    at_R = np.flatnonzero(np.isin(drawn_R, place_S))
    own_RD = sample_SD[np.searchsorted(place_S, drawn_R[at_R])]
    rows, places = reduce.gather(own_RD), reduce.gather(at_R)

    def in_order() -> np.ndarray:
        assert rows is not None, "the first part has the rows of all"
        assert places is not None, "the first part has the rows of all"
        return rows[np.argsort(places)]

    row_RD = reduce.from_first(in_order).astype(np.float32)
    reserve_RD = row_RD[cells:] if len(row_RD) > cells else row_RD
    return Centres.at(row_RD[:cells]), reserve_RD


def _sums(sample_SD: np.ndarray, centres: Centres) -> tuple[np.ndarray, np.ndarray]:
    """Of each cell's rows: their sum, float64 (C, D), and how many there are, float64 (C,)."""
    sum_CD = np.zeros(centres.centre_CD.shape)
    count_C = np.zeros(len(centres))

    def work(tile: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        row_BD = widened(sample_SD[tile])
        cell_B = centres.nearest(row_BD)
        order_B = np.argsort(cell_B, kind="stable")
        cell_U, first_U, count_U = np.unique(cell_B[order_B], return_index=True, return_counts=True)
        return cell_U, np.add.reduceat(row_BD[order_B], first_U, axis=0, dtype=np.float64), count_U

    for cell_U, sum_UD, count_U in in_threads(work, _tiles(0, len(sample_SD), 4 * TILE_ROWS)):
        sum_CD[cell_U] += sum_UD
        count_C[cell_U] += count_U
    return sum_CD, count_C


def widened(row_BD: np.ndarray) -> np.ndarray:
    """float16 → float32."""
    out = np.empty(row_BD.shape, np.float32)
    widen(np.ascontiguousarray(row_BD), out)
    return out


# ---- the rows in their cells


@dataclass(frozen=True, kw_only=True)
class Lists:
    """row_MD: float16, in the order of the cells. number_M: int64, among all rows. start_C1: where each cell begins."""

    centres: Centres
    row_MD: np.ndarray
    number_M: np.ndarray
    start_C1: np.ndarray

    @classmethod
    def of(cls, data: Float32Blocks, cell_M: np.ndarray, centres: Centres) -> Lists:
        """data: this part's rows, read once more. cell_M: as `cells_of` has it."""
        order_M = np.argsort(cell_M, kind="stable")
        place_M = np.empty(len(order_M), np.int64)
        place_M[order_M] = np.arange(len(order_M))
        row_MD = np.empty((data.num_rows, data.dim), np.float16)
        for rows, image in data:
            row_MD[place_M[rows]] = image
        start_C1 = np.concatenate([[0], np.cumsum(np.bincount(cell_M, minlength=len(centres)))])
        return cls(centres=centres, row_MD=row_MD, number_M=order_M + data.first, start_C1=start_C1)

    def search(self, query_BD: np.ndarray, count: int, probes: int) -> Found:
        """The `count` highest cosines among the rows of the `probes` nearest cells, of two alike the one of the lower
        number first; -inf and -1 where there are fewer. query_BD: float32. By one thread."""
        cell_BP = self.centres.visited(query_BD, probes)
        who_V = np.argsort(cell_BP, axis=None, kind="stable") // cell_BP.shape[1]
        visit_C1 = np.concatenate([[0], np.cumsum(np.bincount(cell_BP.ravel(), minlength=len(self.centres)))])
        best = _Best(len(query_BD), count)
        # Memory that is there: fresh one costs as much as the product does.
        rows, scores = np.empty((2, PIECE_ROWS, query_BD.shape[1]), np.float32), np.empty(PIECE_ROWS**2, np.float32)
        for cell in np.flatnonzero((np.diff(visit_C1) > 0) & (np.diff(self.start_C1) > 0)).tolist():
            for piece in _tiles(int(self.start_C1[cell]), int(self.start_C1[cell + 1]), PIECE_ROWS):
                row_RD = rows[0, : piece.stop - piece.start]
                widen(self.row_MD[piece], row_RD)
                for visits in _tiles(int(visit_C1[cell]), int(visit_C1[cell + 1]), PIECE_ROWS):
                    who_Q = who_V[visits]
                    query_QD = np.take(query_BD, who_Q, axis=0, out=rows[1, : len(who_Q)], mode="clip")
                    score_QR = scores[: len(who_Q) * len(row_RD)].reshape(len(who_Q), -1)
                    best.offer(who_Q, np.matmul(query_QD, row_RD.T, out=score_QR), self.number_M[piece])
        return best.falling()


def cells_of(data: Float32Blocks, centres: Centres) -> np.ndarray:
    """(M,) int32: the cell of each row."""
    cell_M = np.empty(data.num_rows, np.int32)

    def work(rows: slice, image: np.ndarray) -> tuple[slice, np.ndarray]:
        return rows, centres.nearest(image)

    for rows, cell_B in data.map(work, row_bytes=4 * len(centres)):
        cell_M[rows] = cell_B
    return cell_M


class _Best:
    """The highest scores of each query so far. What is below `floor_B`, the lowest of them, is not looked at; what is
    not is put beside them, and they are sifted when the room for it is full. A score and its row's number are one
    int64, which is sorted several times as fast as two arrays: of two alike the lower number is the higher."""

    def __init__(self, queries: int, count: int) -> None:
        self.count = count
        self.key_BW = np.full((queries, count + PIECE_ROWS), NOTHING, np.int64)
        self.held_B = np.zeros(queries, np.int64)
        self.floor_B = np.full(queries, -np.inf, np.float32)

    def offer(self, who_Q: np.ndarray, score_QR: np.ndarray, number_R: np.ndarray) -> None:
        """Scores of rows, at most PIECE_ROWS, and their numbers."""
        flat_F = np.flatnonzero(score_QR >= self.floor_B[who_Q, None])
        if not len(flat_F):
            return
        query_F, row_F = np.divmod(flat_F, score_QR.shape[1])
        added_Q = np.bincount(query_F, minlength=len(who_Q))
        self._sift(who_Q[self.held_B[who_Q] + added_Q > self.key_BW.shape[1]])
        held_Q = self.held_B[who_Q]
        # The first of a query's goes behind what it holds, in an array of all queries one after the other.
        first_Q = who_Q * self.key_BW.shape[1] + held_Q - (np.cumsum(added_Q) - added_Q)
        at_F = np.arange(len(flat_F)) + first_Q[query_F]
        self.key_BW.reshape(-1)[at_F] = _keys(score_QR.reshape(-1)[flat_F], number_R[row_F])
        self.held_B[who_Q] = held_Q + added_Q

    def _sift(self, who_Q: np.ndarray) -> None:
        """Keeps the `count` highest of these queries."""
        if not len(who_Q):
            return
        key_QW = self.key_BW[who_Q]
        key_QW.partition(PIECE_ROWS, axis=1)
        self.key_BW[who_Q, : self.count] = key_QW[:, PIECE_ROWS:]
        self.key_BW[who_Q, self.count :] = NOTHING
        self.held_B[who_Q] = self.count
        self.floor_B[who_Q] = _scores(key_QW[:, PIECE_ROWS])

    def falling(self) -> Found:
        shape = len(self.key_BW), self.count
        score_BK, number_BK = np.empty(shape, np.float32), np.empty(shape, np.int64)
        for rows in _tiles(0, len(self.key_BW)):
            key_BW = self.key_BW[rows]
            key_BW.partition(PIECE_ROWS, axis=1)
            key_BK = key_BW[:, PIECE_ROWS:]
            key_BK.sort(axis=1)
            key_BK = key_BK[:, ::-1]
            score_BK[rows], number_BK[rows] = _scores(key_BK), LAST_NUMBER - (key_BK & LAST_NUMBER)
            score_BK[rows][key_BK == NOTHING], number_BK[rows][key_BK == NOTHING] = -np.inf, -1
        return score_BK, number_BK


def _keys(score_F: np.ndarray, number_F: np.ndarray) -> np.ndarray:
    """int64 (F,) in the order of the scores, float32; of two alike the lower number's is higher."""
    bits_F = score_F.view(np.int32)
    bits_F = bits_F ^ ((bits_F >> 31) & 0x7FFFFFFF)  # of negative numbers the bits fall where the number rises
    return (bits_F.astype(np.int64) << 32) | (LAST_NUMBER - number_F)


def _scores(key: np.ndarray) -> np.ndarray:
    bits = (key >> 32).astype(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)
