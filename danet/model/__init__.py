"""The networks: tensors in, tensors out. Knows no files and no class names."""
