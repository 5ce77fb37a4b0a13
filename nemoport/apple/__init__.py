"""Graphs of fixed shapes, for one stream and one lookahead, which the runtimes of Apple's frameworks share."""
