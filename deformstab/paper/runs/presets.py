"""The presets that there are."""

import dataclasses

from deformstab.networks.vgg import CIFAR10_BLOCKS, IMAGENET_BLOCKS
from deformstab.paper.runs.experiments import MAIN_TASKS, STUDIES
from deformstab.paper.runs.note_experiments import NOTE
from deformstab.paper.runs.preset import Preset
from deformstab.paper.runs.pretrained_experiments import PRETRAINED
from deformstab.paper.runs.question_experiments import QUESTIONS
from deformstab.paper.runs.recipes import BY_DEFAULT

_SMALL = Preset(
    "cifar10-small",
    studies=STUDIES,
    dataset="cifar10",
    seeds=5,
    epochs=60,
    stop_accuracy=0.99,
    random_stop_accuracy=0.95,
    train_images=4000,
    blocks=CIFAR10_BLOCKS,
    track=True,
    variants=True,
    tasks_dataset="cifar10",
    large_image_size=224,
    large_epochs=0,
    large_blocks=IMAGENET_BLOCKS,
)
_OTHERS = tuple(name for name in BY_DEFAULT if name not in ("sgd", "twice_the_images"))
_MORE_IMAGES = {
    "studies": ("main",),
    "train_images": 50_000,
    "test_images": 10_000,
    "main_tasks": ("true_labels",),
}
_TO_THE_END = {  # of a schedule, whether true labels are fitted before or not
    "stop_accuracy": 0.0,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "schedule": "cosine",
    "recipes": _OTHERS,
}
PRESETS = {
    "quick": Preset(
        "quick",
        demonstration=(
            "This is a demonstration, not evidence: narrow networks, trained briefly on little "
            "data. It shows that everything works and what the figures look like; whether a claim "
            "of the paper holds, it cannot say."
        ),
    ),
    "cifar10-small": _SMALL,
    # The recipe of cifar10-small on all images: only the number of images differs.
    "cifar10-adam": dataclasses.replace(_SMALL, name="cifar10-adam", **_MORE_IMAGES),
    # Between the two, with random labels as well, which take too long to fit on all images.
    "cifar10-adam-16k": dataclasses.replace(
        _SMALL,
        name="cifar10-adam-16k",
        seeds=3,
        **(_MORE_IMAGES | {"train_images": 16_000, "main_tasks": MAIN_TASKS[:2]}),
    ),
    # All images, and training that generalizes, but no augmentation: it would change stability.
    "cifar10": dataclasses.replace(
        _SMALL,
        name="cifar10",
        studies=("main", "large", "tasks", "filters", "choices"),
        train_images=50_000,
        test_images=10_000,
        epochs=20,
        batch_size=128,
        # Decoupled: what 2e-3 is as an L2 penalty, which momentum of 0.9 makes ten times as strong.
        # A quarter of it, which is usual, is too little without augmentation: test accuracy 0.81
        # (max pooling). Random labels are not learned with it in 20 epochs, and claims say so.
        weight_decay=2e-2,
        **_TO_THE_END,
    ),
    # Networks that others trained, in place of the paper's ImageNet ones.
    "pretrained": Preset("pretrained", studies=(PRETRAINED,)),
    # What the note on convolution and pooling says that this project began from.
    "note": Preset("note", studies=(NOTE,)),
    # What the paper and its successors left open, asked of networks of the recipe of cifar10-small.
    "questions": dataclasses.replace(
        _SMALL,
        name="questions",
        studies=(QUESTIONS,),
        track=False,
        variants=False,
        sizes=(2000, 4000, 8000, 16_000),
    ),
    # The paper's ImageNet networks, on a folder of ImageNet: Figures 2a, 2b and 4a.
    "imagenet": dataclasses.replace(
        _SMALL,
        name="imagenet",
        studies=("large",),
        large_dataset="imagenet",
        large_train_images=1_281_167,
        large_epochs=30,
        batch_size=256,
        weight_decay=1e-3,
        track=False,
        variants=False,
        **_TO_THE_END,
    ),
}
