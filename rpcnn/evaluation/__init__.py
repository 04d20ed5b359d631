"""Evaluation on a data set, of a trained model or of prediction files."""
