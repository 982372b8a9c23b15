"""Ratios measured side by side in one run. Command: `danet bench`, one file a benchmark."""
