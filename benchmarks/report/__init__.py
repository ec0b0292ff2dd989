"""Rows -> report: `assembly.py` puts it together, `document.py` says what it is made of and sets it."""
