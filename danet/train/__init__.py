"""Recipe + samples + network -> a run folder."""
