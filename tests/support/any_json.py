"""Any JSON value, for what must take anything."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["ANY_JSON"]

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
