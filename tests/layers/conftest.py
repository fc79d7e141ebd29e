import sys
from pathlib import Path

# For the list of all handlers, handler_cases.py.
sys.path.insert(0, str(Path(__file__).parents[1] / "handlers"))
