"""Weights files: read, write, convert, export, run exported models."""
