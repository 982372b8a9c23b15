"""The public datasets, one file each, listed in `data.registry`."""
