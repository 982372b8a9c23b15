"""Run networks on images: protocols, sliding windows, predictions, overlays, attention."""
