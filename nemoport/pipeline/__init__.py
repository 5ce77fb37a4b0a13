"""`nemoport run`: everything from a checkpoint to a verified package and its report, in one call."""
