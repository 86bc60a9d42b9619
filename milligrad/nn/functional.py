"""`milligrad.functional` under PyTorch's name for it."""

from milligrad.functional import *
