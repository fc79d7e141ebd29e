"""Which optional dependencies are there: names of version 0.5.

Each is found without being imported. What needs one that is missing says so when it is
used, and how to install it.
"""

from importlib.util import find_spec

__all__ = ["has_bokeh", "has_pycuda", "has_pygraphviz"]


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


has_bokeh: bool = _is_there("bokeh")
has_pycuda: bool = _is_there("pycuda")
has_pygraphviz: bool = _is_there("pygraphviz")
