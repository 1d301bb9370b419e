"""Records backends_table.csv, what TensorFlow measures: `python tests/data/make_backends_table.py`."""

import pathlib
import sys

import keras
import pandas as pd

tests = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(tests), str(tests.parent)]

from test_backends_agree import RECORDED, measured  # noqa: E402

from deformstab.tables import write_csv  # noqa: E402

assert keras.backend.backend() == "tensorflow"
write_csv(pd.concat([measured("cosine"), measured("euclidean")]), RECORDED)
