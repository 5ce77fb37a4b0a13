"""Audio for calibration and evaluation, and activation ranges taken from warm streams of it."""
