"""The server of `nemoport serve`: live streams over WebSockets, recordings over HTTP, many sessions in one batch.

A client's message is read by a protocol (native.py, realtime.py), which makes actions of it (actions.py). `connection.py` carries
them to a session (live.py), and the session's events back. The threads of a batcher (batcher.py) run the next chunk of all
sessions that have one. The event loop runs nothing of the model.
"""
