"""Benchmarks: the same work by this library and by PyTorch, side by side in one run.

Each work is a module with a function `steps()`. It returns a dict from the name of
each contestant to a callable that does one training step and returns the loss. All
start from the same weights and get the same batch, so their losses must agree.
"""
