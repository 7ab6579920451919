"""Patch grids as hypothesis draws them."""

from hypothesis import strategies as st

from deepem.scan.grid import Grid


@st.composite
def grids(draw, most=9):
    patch = draw(st.tuples(*[st.integers(2, most)] * 3))
    output = tuple(draw(st.integers(max(1, p - 3), p)) for p in patch)
    stride = tuple(draw(st.integers(1 + o // 4, o)) for o in output)
    size = tuple(p + draw(st.integers(0, 2 * most)) for p in patch)
    return Grid(size, patch, output, stride)
