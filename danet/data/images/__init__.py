"""Decode image and mask files. No other code opens an image or a mask."""
