"""Shared by the targets of Apple's frameworks: graphs of fixed shapes, for one stream and one lookahead."""
