"""Suites of experiments, the runner that measures them and the report that compares them."""
