"""Read datasets: image and mask files in, samples with train-id labels out. Knows nothing of networks."""
