"""The parts of PyCudaHandler. Nothing here imports PyCUDA before it is needed."""
