"""The study "recipes": other trainings, one thing changed at a time."""

# Of the main study's training on true labels, or, where a recipe names that task, of the tasks of
# Figure 3. Of `_FACTORS` they are multiples.
RECIPES = {
    "inputs_unit": {"input_scaling": "unit"},
    "inputs_standardized": {"input_scaling": "standardized"},
    "half_the_images": {"train_images": 0.5},
    "twice_the_images": {"train_images": 2},
    "batches_times_4": {"batch_size": 4},
    "learning_rate_tenth": {"learning_rate": 0.1},
    "sgd": {"optimizer": "sgd", "learning_rate": 30},
    "bfloat16": {"precision": "mixed_bfloat16"},
    "tasks_20_epochs": {"task": "deformed_classes", "epochs": 20, "stop_accuracy": 0.0},
}
_ON_REQUEST = ("bfloat16",)  # not every processor computes in it
BY_DEFAULT = tuple(name for name in RECIPES if name not in _ON_REQUEST)
_FACTORS = ("train_images", "batch_size", "learning_rate")


def repeated(name: str, preset) -> str:
    """What a recipe would only repeat of the preset: "optimizer is sgd", or "" if nothing."""
    for field, value in RECIPES[name].items():
        if isinstance(value, str) and getattr(preset, field, None) == value:
            return f"{field} is {value}"
    return ""


def changes_of(name: str, preset) -> dict:
    """The fields of an experiment of the preset that a recipe changes.

    Raises:
        ValueError: the recipe repeats the preset; of sgd, the factor is for Adam's learning rate.
    """
    same = repeated(name, preset)
    if same:
        raise ValueError(
            f"recipe {name} is the preset's own: {same} already. Say with --recipes which to run"
        )
    found = dict(RECIPES[name])
    for factor in _FACTORS:
        if factor in found:
            value = getattr(preset, factor)
            found[factor] = type(value)(value * found[factor])
    return found


def check_images(experiment, images: int) -> None:
    """Refuses twice the images where there are not so many: it would be a run of another name."""
    if "train_images" in RECIPES.get(experiment.choice, ()) and experiment.train_images > images:
        raise ValueError(
            f"recipe {experiment.choice} asks for {experiment.train_images} training images, and "
            f"{experiment.dataset} has {images}. Say with --recipes which to run"
        )
