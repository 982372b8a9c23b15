"""A user's own folder of images and masks: find its layout, propose dataset.yaml, read it, check it."""
