"""A trained model for other software: ONNX and torch.export. docs/export.md describes what it writes."""
