"""Transcribes the microphone: python microphone.py VARIANT_FOLDER. Ctrl-C ends it. Needs: pip install sounddevice"""

import queue
import sys

import sounddevice

from nemoport import Recognizer
from nemoport.utterances import EndRule

recognizer = Recognizer.open(sys.argv[1])
live = recognizer.utterances(EndRule(pause_s=0.8))
packets: queue.Queue = queue.Queue()
settings = {"samplerate": recognizer.sample_rate_hz, "channels": 1, "dtype": "float32"}
# The callback has no time to transcribe: it hands the samples over.
with sounddevice.InputStream(**settings, callback=lambda samples, *_: packets.put(samples[:, 0].copy())):
    try:
        while True:
            for utterance in live.feed(packets.get()):
                print("\r" + utterance.text)
            print("\r" + live.text, end="", flush=True)
    except KeyboardInterrupt:
        print("\r" + " ".join(utterance.text for utterance in live.finish()))
