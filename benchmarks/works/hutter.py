from __future__ import annotations

from benchmarks.works.lstm import lstm_work

WORK = lstm_work(time=20, batch=100, inputs=205, cells=1000, classes=205)
