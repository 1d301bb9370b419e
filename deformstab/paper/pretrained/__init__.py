"""Networks that others trained, from packages that hold their weights, files, or keras.applications.

In: a name. Out: a Keras model with these weights, its preprocessing, and the same with random ones.
"""
