"""The fuzzer, see __main__.py."""

import os

os.environ["HF_HUB_OFFLINE"] = (
    "1"  # a checkpoint's name that is no file may read as a Hub id; read when huggingface_hub is imported
)
