"""Optimizers and learning rate schedulers, with PyTorch's names, arguments and results."""

from milligrad.optim import lr_scheduler
from milligrad.optim.optimizer import Optimizer
from milligrad.optim.rules import SGD, Adagrad, Adam, AdamW, RMSprop

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
