"""Foreign weights in, other formats out."""
