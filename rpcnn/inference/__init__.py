"""Inference with a trained model: resize images, run the network (once or with augmentation), combine, save results."""
