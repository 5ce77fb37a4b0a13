"""TDT: a transducer that predicts with each token how many frames to go on by. Its graph scores the durations behind the
tokens."""

from __future__ import annotations

from nemoport.heads import Head
from nemoport.heads.rnnt import start_transducer, transducer_interface

HEAD = Head("tdt", transducer_interface, start_transducer)
