"""The paper's analyses of a trained model, a file each: ``python -m rpcnn.analyze``.

`trained` opens a model and goes through a data set, `paper` holds the published numbers, `report` writes tables and
plots.
"""
