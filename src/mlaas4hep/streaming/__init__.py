"""Files to batches of tensors: catalogue, specs, encoding, stream."""
