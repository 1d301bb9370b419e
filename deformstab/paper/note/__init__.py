"""What the reader's note says of convolution and pooling, each statement measured on a small network.

In: a seed and sizes. Out: tables of what was measured, and of what follows on paper where it does.
"""
