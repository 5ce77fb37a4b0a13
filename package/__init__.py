"""Packages: layouts for consumers, the model card, licence terms, manifest, verification and upload."""
