"""Evaluation of a package on much audio, without NeMo: texts are stored as they are emitted, and scored afterwards."""
