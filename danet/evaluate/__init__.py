"""Score predictions: metrics, official protocols, robustness to corrupted images."""
