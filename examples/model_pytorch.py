"""PyTorch: a module with its loss, its optimiser and a learning rate that falls.

workflow.py --files=examples/data/VBF_HToTauTau.root,examples/data/GluGluToHToTauTau.root --labels=VBF,ggH --model=examples/model_pytorch.py
"""

import torch
from torch import nn


def model(idim):
    module = nn.Sequential(
        nn.BatchNorm1d(idim),
        nn.Linear(idim, 128),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 1),  # one logit: of the second class
    )
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.9)  # once an epoch
    return module, nn.BCEWithLogitsLoss(), optimiser, scheduler
