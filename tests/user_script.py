"""What a user writes, each public name once: `make lint` checks its types, nothing runs it."""

# pyright: reportUnnecessaryTypeIgnoreComment=error

import keras
import numpy as np
import pandas as pd

import deformstab as ds

images = np.zeros((8, 32, 32, 3), "float32")
labels = np.zeros(8, "int64")

blocks = (*ds.CIFAR10_BLOCKS, *ds.IMAGENET_BLOCKS)
kinds: tuple[str, ...] = (*ds.PAPER_KINDS, *ds.DOWNSAMPLING_KINDS, *ds.SWAP_KINDS)
smooth = ds.SmoothedInitializer(1.0, initializer="he_normal", seed=0)
model = ds.vgg((32, 32, 3), 10, blocks, "average", kernel_initializer=smooth, seed=0)
names: list[str] = ds.paper_layers(model)
blurred: keras.Model = ds.swap_downsampling(model, "blur", blur_size=5, start="average")
outputs = ds.reestimate_batch_normalization(model, images)

layer = ds.RandomDeformation(control_points=(3, 4), max_displacement=(2.0, 1.0), seed=0)
deformed = layer(images, training=True)
displacements = layer.draw(8, seed=1)
flow = layer.flow(displacements, height=32, width=32)
again = layer.deform(images, displacements)
landmarks = layer.move_points(np.zeros((8, 1, 2)), displacements, height=32, width=32)
default: ds.RandomDeformation = ds.paper_deformation((32, 32, 3))

families = (
    ds.RandomDiffeomorphism(cutoff=3, rms_displacement=1.25, seed=0),
    ds.RandomTranslation(1.0, integer=True, padding="circular", seed=0),
    ds.RandomRotation(rms_displacement=1.25),
    ds.RandomScaling(rms_displacement=1.25),
)
strength: float = layer.expected_rms(32, 32) + families[0].expected_rms(32, 32)
turned: pd.DataFrame = ds.measure_sensitivity(model, images, families[2])
flipped: pd.DataFrame = ds.measure_sensitivity(model, images, lambda images, seed: images[:, ::-1])
by_part: pd.DataFrame = ds.sensitivity_by_part(model, images, families[0])
stability: pd.DataFrame = ds.measure_stability(model, images, noise="spectrum")
moves: pd.DataFrame = ds.measure_equivariance(model, images, families[1], border=False)

table: pd.DataFrame = ds.measure_sensitivity(model, images, layer, names, metric="euclidean")
shown = table[["layer", "sensitivity"]]
both: tuple[pd.DataFrame, pd.DataFrame] = ds.measure_sensitivity(
    model, images, layers=[keras.layers.Conv2D, "*pool*"], return_distances=True
)
strengths: pd.DataFrame = ds.sensitivity_by_strength(model, images, [0.5, (1.0, 2.0)])
compared: pd.DataFrame = ds.compare_sensitivity({"a": model, "b": blurred}, images, by="depth")
answers: pd.DataFrame = ds.prediction_consistency(model, images, labels=labels)
shifts: pd.DataFrame = ds.shift_consistency(model, images, labels, protocol="circular")
worst: tuple[pd.DataFrame, np.ndarray] = ds.worst_deformation(model, images, names[1], within="rms")
smoothness: pd.DataFrame = ds.filter_smoothness(model)
variation: float = ds.normalized_total_variation(np.zeros((3, 3, 2, 4)))
far = ds.cosine_distance(images, images) + ds.euclidean_distance(images, images)

callback = ds.SensitivityCallback(images, layers=names, steps="log", csv_path="sensitivity.csv")
model.fit(images, labels, callbacks=[callback])
ds.SensitivityCallback(images, figure=ds.figure_to("logs", "heatmap"))
ds.SensitivityCallback(images, figure=ds.figure_to(lambda figure, step: figure.savefig("a.png")))
recorded: pd.DataFrame = pd.concat([callback.table, callback.smoothness_table])

figure = ds.plot_sensitivity(table, "a title")
figure.savefig("sensitivity.png")
ds.plot_sensitivity(table, ax=figure.axes[0])
ds.plot_heatmap(strengths, by="max_displacement", ax=figure.axes[0])
ds.plot_comparison(compared, axes=figure.axes)
ds.plot_measures(table, stability, moves, worst[0]).savefig("measures.png")
ds.plot_examples(model, images, names[1], count=3, least=True, flow="grid").savefig("examples.png")
ds.plot_examples(model, images, names[1], value_range=lambda image: image / 2 + 0.5)
seen = ds.report_examples(model, images, names[:2], count=2, worst=1)
ds.write_report("report.html", {"a": [table, stability]}, examples={"a": seen}, settings={"n": 1})

points = np.zeros((1, 4, 2), "float32")
spline = ds.addons.interpolate_spline(points, points, points, order=2)
warped = ds.addons.dense_image_warp(images, np.zeros((8, 32, 32, 2), "float32"))
moved, field = ds.addons.sparse_image_warp(images[:1], points, points + 1.0)
version: str = ds.__version__

# A mistake is one to the type checker as well: without it, the comment would be an error.
ds.vgg((32, 32, 3), 10, downsampling="avg")  # pyright: ignore[reportArgumentType]
ds.measure_sensitivity(model, images, metric="cosin")  # pyright: ignore[reportArgumentType]
