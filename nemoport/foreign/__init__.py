"""Anybody's folder of ONNX graphs of a NeMo recogniser, read by what is in it and not by the names of one convention.

`read_folder(folder)` (folder.py) finds graphs, vocabularies and settings; no code of the folder is run, and every file is read
within bounds. `open_session(model)` (session.py) runs one of its models as a `nemoport.session.Session`, whatever its names, its
order of axes and its integer types are.
"""
