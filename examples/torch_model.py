"""A model file for workflow.py: a function that gets the number of places of the feature vector and returns a module."""

import torch


def model(idim):
    """Return a network with one output: the logit of the second class."""
    return torch.nn.Sequential(
        torch.nn.BatchNorm1d(idim),
        torch.nn.Linear(idim, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 1),
    )
