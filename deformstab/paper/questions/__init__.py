"""What is measured to answer the questions that the paper and its successors left open.

In: a network, images, deformations. Out: long tables, a row a layer and condition.
"""
