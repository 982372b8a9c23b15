"""Training of a recipe on one device or several."""
