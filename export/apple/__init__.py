"""What the targets of Apple's frameworks share: graphs of fixed shapes, for one stream and one lookahead."""
