"""What moves the pixels: random smooth deformations, and scattered-point splines.

In: images and a strength in pixels. Out: flows [batch, height, width, 2] and deformed images.
"""
