"""What the package says about itself."""

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
__version__ = "0.6.0"
__license__ = "MIT"
__copyright__ = "2015 The brainstorm developers"
