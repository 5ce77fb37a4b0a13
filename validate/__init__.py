"""Records NeMo's own runs (the oracle) and holds the variants of a build to gates, before they are packaged."""
