"""A trained model for other software: ONNX, torch.export, AOTInductor. docs/export.md describes what it writes."""
