"""What version 0.5 said about itself."""

from brainstorm import __version__

__all__ = [
    "__author__",
    "__copyright__",
    "__license__",
    "__summary__",
    "__title__",
    "__version__",
]

__title__ = "brainstorm"
__summary__ = "Fast, flexible and fun neural networks"
__author__ = "The brainstorm developers"
__license__ = "MIT"
__copyright__ = "2015 The brainstorm developers"
