"""The register tiles of the numba back end: shapes that LLVM turns into fused multiply-adds on whole vectors."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

STRIP = 8  # weights summed side by side; a multiple of the 4 × 4 tile
RUN = 1024  # lags summed in the arrays' own type; a multiple of every vector's length


def compiled(function: F) -> F:
    """Compile on first call, keep the machine code on disk, run without the interpreter's lock."""
    decorate = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
    return cast("F", decorate(function))


@compiled
def dot_tiles(delta: Array, flat: Array, rows: Array, start: int, stop: int, gradient: Array) -> None:
    """Add the products of lags start..stop to `gradient` `[rows, M]`, in tiles of 4 × 4 dot products.

    gradient[r, m] += Σ delta[m, l] flat[rows[r] + l]. Both counts are multiples of 4. The sixteen sums of a tile live
    in registers; LLVM makes each a vector over l.
    """
    for m in range(0, delta.shape[0], 4):
        d0, d1 = delta[m, start:stop], delta[m + 1, start:stop]
        d2, d3 = delta[m + 2, start:stop], delta[m + 3, start:stop]
        for r in range(0, len(rows), 4):
            a0, a1 = flat[rows[r] + start : rows[r] + stop], flat[rows[r + 1] + start : rows[r + 1] + stop]
            a2, a3 = flat[rows[r + 2] + start : rows[r + 2] + stop], flat[rows[r + 3] + start : rows[r + 3] + stop]
            zero = delta.dtype.type(0)
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = zero
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = zero
            for t in range(stop - start):
                x0, x1, x2, x3 = d0[t], d1[t], d2[t], d3[t]
                y0, y1, y2, y3 = a0[t], a1[t], a2[t], a3[t]
                s00 += x0 * y0
                s01 += x0 * y1
                s02 += x0 * y2
                s03 += x0 * y3
                s10 += x1 * y0
                s11 += x1 * y1
                s12 += x1 * y2
                s13 += x1 * y3
                s20 += x2 * y0
                s21 += x2 * y1
                s22 += x2 * y2
                s23 += x2 * y3
                s30 += x3 * y0
                s31 += x3 * y1
                s32 += x3 * y2
                s33 += x3 * y3
            g0, g1, g2, g3 = gradient[r], gradient[r + 1], gradient[r + 2], gradient[r + 3]
            g0[m] += s00
            g1[m] += s01
            g2[m] += s02
            g3[m] += s03
            g0[m + 1] += s10
            g1[m + 1] += s11
            g2[m + 1] += s12
            g3[m + 1] += s13
            g0[m + 2] += s20
            g1[m + 2] += s21
            g2[m + 2] += s22
            g3[m + 2] += s23
            g0[m + 3] += s30
            g1[m + 3] += s31
            g2[m + 3] += s32
            g3[m + 3] += s33


@compiled
def dot_rows(delta: Array, flat: Array, rows: Array, start: int, stop: int, gradient: Array) -> None:
    """Do as `dot_tiles` in tiles of 4 × 1, without waste where filters are few."""
    for m in range(delta.shape[0]):
        d = delta[m, start:stop]
        for r in range(0, len(rows), 4):
            a0, a1 = flat[rows[r] + start : rows[r] + stop], flat[rows[r + 1] + start : rows[r + 1] + stop]
            a2, a3 = flat[rows[r + 2] + start : rows[r + 2] + stop], flat[rows[r + 3] + start : rows[r + 3] + stop]
            s0 = s1 = s2 = s3 = delta.dtype.type(0)
            for t in range(stop - start):
                s0 += d[t] * a0[t]
                s1 += d[t] * a1[t]
                s2 += d[t] * a2[t]
                s3 += d[t] * a3[t]
            gradient[r, m] += s0
            gradient[r + 1, m] += s1
            gradient[r + 2, m] += s2
            gradient[r + 3, m] += s3


@compiled
def axpy_tiles(delta: Array, flat: Array, rows: Array, position: Array, gradient: Array) -> None:
    """Add the products of all positions to `gradient` `[rows, M]`, four rows and four positions at a time.

    gradient[r, m] += Σ delta[t, m] flat[rows[r] + position[t]]. Counts of rows and positions are multiples of 4. Faster
    than dot products where positions are few and filters many: vectors run over m.
    """
    for t in range(0, len(position), 4):
        d0, d1, d2, d3 = delta[t], delta[t + 1], delta[t + 2], delta[t + 3]
        p0, p1, p2, p3 = position[t], position[t + 1], position[t + 2], position[t + 3]
        for r in range(0, len(rows), 4):
            f0, f1, f2, f3 = flat[rows[r] :], flat[rows[r + 1] :], flat[rows[r + 2] :], flat[rows[r + 3] :]
            a00, a01, a02, a03 = f0[p0], f0[p1], f0[p2], f0[p3]
            a10, a11, a12, a13 = f1[p0], f1[p1], f1[p2], f1[p3]
            a20, a21, a22, a23 = f2[p0], f2[p1], f2[p2], f2[p3]
            a30, a31, a32, a33 = f3[p0], f3[p1], f3[p2], f3[p3]
            g0, g1, g2, g3 = gradient[r], gradient[r + 1], gradient[r + 2], gradient[r + 3]
            for m in range(delta.shape[1]):
                x0, x1, x2, x3 = d0[m], d1[m], d2[m], d3[m]
                g0[m] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                g1[m] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                g2[m] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                g3[m] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3
