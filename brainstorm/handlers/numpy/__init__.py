"""The operations of NumpyHandler, by topic."""
