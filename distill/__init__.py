"""Distillation: the encoder's weights are trained in 2 bits towards the checkpoint's own frames and tokens, on any speech."""
