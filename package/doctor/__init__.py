"""`nemoport doctor`: what is wrong with anybody's package of ONNX graphs, why it loses words, and what to do.

`examine` (examine.py) runs every check of findings/, one file each, over a folder that nemoport.foreign has read.
"""
