"""What is measured of a network: how far deformations move each layer, and how smooth filters are.

In: any Keras model, images, a deformation. Out: DataFrames, a row a layer.
"""
