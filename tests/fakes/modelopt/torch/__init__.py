"""The parts of ModelOpt for models of PyTorch."""
