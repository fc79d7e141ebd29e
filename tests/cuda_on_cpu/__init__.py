"""CUDA on the CPU, for tests: an emulation, not a GPU.

Kernels are compiled with g++ through `shim.h` and run one block after the other. It
shows whether they compute the right numbers, stay inside of their arrays, and depend
on the order of threads. It shows nothing about speed, about warps, about threads that
really run at the same time, or about cuBLAS, of which `cublas.cpp` is a stand-in.

There are two ways to use it:

- `sanitized.py` runs PyCudaHandler without PyCUDA: its kernels in a process of their
  own (`runner.cpp`) with address and undefined-behavior sanitizers, each launch with
  threads and blocks in forward and in reverse order. It needs g++ alone.
- ``python tests/cuda_on_cpu/run.py -m pytest -m gpu`` runs the real PyCUDA on a
  stand-in driver (`driver.cpp`), compiler (`nvcc`) and cuBLAS. It needs g++, cuda.h
  and PyCUDA.
"""
