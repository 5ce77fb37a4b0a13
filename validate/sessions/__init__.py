"""One file per runtime that can run an artifact; each implements `nemoport.decode.Session`."""
