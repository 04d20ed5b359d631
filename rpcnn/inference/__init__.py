"""From pictures to results with a trained model: resize, network (one pass or the augmented ones), combine, save."""
