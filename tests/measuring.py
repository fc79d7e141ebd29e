"""Measuring memory, for tests."""

import sys
import tracemalloc


def peak_of(function, runs=2):
    """The bytes that a call allocates above what was there.

    Without those of what traces the lines that are covered: it is paused, or
    allocates in the first of several calls only.
    """
    peaks, tracer = [], sys.gettrace()
    tracemalloc.start()
    sys.settrace(None)
    try:
        for _ in range(runs):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            function()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        sys.settrace(tracer)
        tracemalloc.stop()
    return min(peaks)
