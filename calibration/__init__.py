"""Calibration: activation ranges and other statistics, collected from streams of calibration audio with full caches."""
