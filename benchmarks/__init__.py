"""Benchmarks: the same work by this library, PyTorch and JAX, side by side in one run.

`works` says what there is to do. Each contestant works in a process of its own
(`worker`), on the same data from the same weights, with this library
(`with_brainstorm`), with PyTorch (`with_pytorch`) or with JAX (`with_jax`, of
`jax_layers`). `__main__` has them take turns, makes sure that their losses agree, and
prints the tables, and whether anything takes more than before (`verdicts`).
"""
