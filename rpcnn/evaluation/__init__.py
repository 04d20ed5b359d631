"""Predictions against a data set: a trained model's, or anybody's on disk."""
