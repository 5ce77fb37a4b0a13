"""The page that transcribes in a browser (`page/`), what it takes to run, and a server for it on this machine."""
