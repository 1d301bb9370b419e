"""What is looked at: networks with kinds of downsampling, and changes to networks of others.

In: a table of blocks, or any Keras model. Out: a Keras model.
"""
