"""Side-by-side timings; `command.py` runs them."""
