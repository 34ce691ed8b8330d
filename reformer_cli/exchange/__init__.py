"""Models in and out: transformers' folders, plain tensors, model cards."""
