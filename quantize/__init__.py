"""One file per precision; the file's name is the variant's name."""
