"""`danet serve`: the network over HTTP, and a page that shows where each pixel looks."""
