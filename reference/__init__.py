"""The reference checkpoint: a small streaming transducer of the published structure, and the recipe that trains it.

Speech comes from espeak-ng (and, where given, from recordings in NeMo manifests), so that a clone can rebuild it.
"""
