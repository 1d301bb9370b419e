"""Writes checkpoint_pickles.pth, checkpoint_archive.pth and checkpoint.npz: one state dictionary in both
forms that torch.save has had, and its tensors as NumPy arrays. Run with PyTorch: recorded with 2.13.0.
"""

import collections
import pathlib

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
torch.manual_seed(0)
shared = torch.randn(4, 6)
state = collections.OrderedDict(
    conv=torch.randn(3, 2, 3, 3),
    turned=torch.randn(3, 5).t(),  # strides in the other order
    part=shared[1:3, ::2],  # an offset, and steps
    rest=shared,  # of the same storage
    half=torch.randn(7).half(),
    double=torch.randn(2, 2).double(),
    count=torch.tensor(41),  # no axes
    bytes=torch.arange(5, dtype=torch.uint8),
    integers=torch.arange(4, dtype=torch.int32),
    nothing=torch.zeros(0, 3),
)
state._metadata = {"version": 1}  # as of a module's state_dict
torch.save(state, HERE / "checkpoint_pickles.pth", _use_new_zipfile_serialization=False)
torch.save(state, HERE / "checkpoint_archive.pth")
np.savez(HERE / "checkpoint.npz", **{name: value.numpy() for name, value in state.items()})
