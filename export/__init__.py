"""Checkpoint in, graphs out: reading .nemo files, the modules that are traced, target formats."""
