"""The network: tensors in, tensors out. Knows no files and no classes' names."""
