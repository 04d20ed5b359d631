"""The paper's analyses of a trained model, one file each: ``python -m rpcnn.analyze``.

`trained` loads a model and iterates over a data set, `paper` holds the published numbers, `report` writes tables and
plots.
"""
