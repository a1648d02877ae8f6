"""Why a figure is what it is: every event that it rests on, and each step of arithmetic. See `steps.py`."""
