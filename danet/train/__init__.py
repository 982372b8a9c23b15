"""Train a recipe, on one device or several."""
