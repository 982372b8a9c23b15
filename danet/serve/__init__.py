"""`danet serve`: predictions and attention over HTTP, with a web page."""
