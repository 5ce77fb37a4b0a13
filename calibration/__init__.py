"""Activation ranges and other statistics, taken from warm streams of calibration audio."""
