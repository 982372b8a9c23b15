"""The networks: tensors in, tensors out. Nothing here knows files or class names."""
