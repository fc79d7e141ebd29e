"""Which optional dependencies are there: names of version 0.5.

Each is found without being imported. What needs one that is missing says so when it is
used, and how to install it.
"""

from importlib.util import find_spec

__all__ = ["has_bokeh", "has_pycuda", "has_pygraphviz"]

has_bokeh = find_spec("bokeh") is not None
has_pycuda = find_spec("pycuda") is not None
has_pygraphviz = find_spec("pygraphviz") is not None
