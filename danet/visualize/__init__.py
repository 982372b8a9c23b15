"""Draw results: HTML reports, charts, attention figures."""
