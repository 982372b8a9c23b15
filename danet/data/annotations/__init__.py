"""Read the exports of annotation tools, draw their shapes as label maps, and write predictions for these tools."""
