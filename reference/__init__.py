"""Reference checkpoints: small transducers of the published structures, one of each kind, and the recipe that trains them.

Speech comes from espeak-ng (and, where given, from recordings in NeMo manifests), so that a clone can rebuild them.
"""
