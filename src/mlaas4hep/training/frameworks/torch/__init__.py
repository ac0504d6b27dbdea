"""PyTorch modules, trained by Lightning and exported by way of torch.export."""
