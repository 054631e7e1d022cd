"""What works on models of PyTorch."""
