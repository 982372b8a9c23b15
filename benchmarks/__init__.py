"""Benchmarks: each script prints a table and writes JSON. Run as `python -m benchmarks.NAME --help`."""
