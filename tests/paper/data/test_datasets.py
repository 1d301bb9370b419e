"""The data sets: what is in them, that train and test are apart, and that bad data is refused."""

import re
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from deformstab.paper.data import bundled, datasets

PHOTOS = (
    "astronaut chelsea coffee rocket hubble_deep_field retina immunohistochemistry "
    "stereo_motorcycle china flower"
).split()


def check(data, size, channels, train, test):
    """What holds for every data set."""
    for x, y, count in ((data.x_train, data.y_train, train), (data.x_test, data.y_test, test)):
        assert x.shape == (count, size, size, channels)
        assert x.dtype == "float32"
        assert y.shape == (count,)
        assert y.dtype == "int64"
        assert x.min() >= -1
        assert x.max() <= 1
        assert set(y) <= set(range(data.classes))
    assert data.image_shape == (size, size, channels)


def assert_same(first, second):
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def counts(labels):
    return np.unique(labels, return_counts=True)[1]


# ---- photos ----


@pytest.mark.parametrize(("size", "train", "test"), [(7, 43, 20), (16, 100, 100), (33, 20, 11)])
def test_photos_of_any_size_are_balanced_and_shuffled(size, train, test):
    data = datasets.load("photos", image_size=size, train_images=train, test_images=test)
    check(data, size, 3, train, test)
    assert data.classes == 10
    assert (data.name, len(counts(data.y_train))) == ("photos", 10)
    assert np.ptp(counts(data.y_train)) <= 1
    assert np.ptp(counts(data.y_test)) <= 1
    assert (np.diff(data.y_train) < 0).sum() > train / 5
    assert data.x_train.std() > 0.2  # photographs, not a constant
    assert len(np.unique(data.x_train.reshape(train, -1), axis=0)) > 0.9 * train


def test_photos_repeat_whatever_numpys_own_generator_did():
    load = lambda: datasets.load("photos", image_size=9, train_images=30, test_images=12)
    np.random.seed(1)  # noqa: NPY002
    first = load()
    bundled.photos.cache_clear()
    bundled.photograph.cache_clear()
    np.random.seed(2)  # noqa: NPY002
    second = load()
    assert second is not first
    assert_same(first, second)


def places_of(crop, photo):
    """(y, x) of every place of a photograph that shows exactly this crop."""
    size = len(crop)
    height, width = (side - size + 1 for side in photo.shape[:2])
    corners = np.argwhere((photo[:height, :width] == crop[0, 0]).all(axis=-1))
    return [(y, x) for y, x in corners if (photo[y : y + size, x : x + size] == crop).all()]


def test_photos_train_and_test_share_no_pixel_position():
    size = 16
    data = datasets.load("photos", image_size=size, train_images=200, test_images=200)
    photographs = [bundled.photograph(name, bundled.PHOTO_SIDES * size) for name in PHOTOS]
    used = {
        part: [np.zeros(photo.shape[:2], bool) for photo in photographs]
        for part in ("train", "test")
    }
    found, places = 0, set()
    for part, x, y in (
        ("train", data.x_train, data.y_train),
        ("test", data.x_test, data.y_test),
    ):
        for crop, label in zip(x, y):
            where = places_of(crop, photographs[label])
            assert where  # the class is the photograph
            if len(where) == 1:  # the sky over a rocket looks alike at many places
                (top, left) = where[0]
                used[part][label][top : top + size, left : left + size] = True
                places.add((label, *where[0]))
                found += 1
    assert found > 350
    for train, test in zip(used["train"], used["test"]):
        assert train.any()
        assert test.any()
        assert not (train & test).any()
    # Anywhere in a part, not in one row or column.
    for label in range(10):
        rows, columns = zip(*[place[1:] for place in places if place[0] == label])
        assert len(set(rows)) > 5
        assert len(set(columns)) > 5


@pytest.mark.parametrize("name", ["coffee", "stereo_motorcycle", "china"])
def test_a_photograph_keeps_its_shape_and_colours(name):
    small, large = bundled.photograph(name, 40), bundled.photograph(name, 80)
    assert min(small.shape[:2]) == 40
    assert small.shape[2] == 3
    assert max(large.shape[:2]) / 80 == pytest.approx(max(small.shape[:2]) / 40, abs=0.02)
    height, width = small.shape[:2]
    halved = large[: 2 * height, : 2 * width]
    halved = halved[: halved.shape[0] // 2 * 2, : halved.shape[1] // 2 * 2]
    halved = halved.reshape(halved.shape[0] // 2, 2, halved.shape[1] // 2, 2, 3).mean(axis=(1, 3))
    difference = halved - small[: halved.shape[0], : halved.shape[1]]
    assert np.abs(difference).mean() < 0.08
    assert np.corrcoef(halved.ravel(), small[: len(halved), : halved.shape[1]].ravel())[0, 1] > 0.97


# ---- digits ----


def test_digits_are_scikit_learns_with_a_margin():
    from sklearn.datasets import load_digits

    digits = load_digits()
    known = {}
    for image, label in zip(digits.images, digits.target):
        known.setdefault(image.astype("float32").tobytes(), set()).add(label)
    # At 12 pixels a side, 8 and a margin of 2 on each side, nothing is interpolated.
    data = datasets.load("digits", image_size=12, train_images=1000, test_images=300)
    check(data, 12, 1, 1000, 300)
    assert data.classes == 10
    originals = []
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert (x[:, [0, 1, 10, 11]] == -1).all()
        assert (x[:, :, [0, 1, 10, 11]] == -1).all()
        inside = np.rint((x[:, 2:10, 2:10, 0] + 1) * 8)
        originals.append({image.tobytes() for image in inside})
        for image, label in zip(inside, y):
            assert label in known[image.tobytes()]
        assert np.ptp(counts(y)) <= 1
    duplicates = len(digits.images) - len(known)
    assert len(originals[0] & originals[1]) <= duplicates
    assert (np.diff(data.y_train) < 0).sum() > 200


def test_digits_of_another_size_look_like_digits():
    small, large = (
        datasets.load("digits", image_size=size, train_images=60, test_images=20)
        for size in (12, 32)
    )
    check(large, 32, 1, 60, 20)
    np.testing.assert_array_equal(small.y_train, large.y_train)
    assert large.x_train.max() > 0.9
    shrunk = np.stack(
        [np.asarray(Image.fromarray(x[..., 0]).resize((12, 12))) for x in large.x_train]
    )
    assert np.corrcoef(shrunk.ravel(), small.x_train.ravel())[0, 1] > 0.97


# ---- data from disk ----


def arrays(train=30, test=12, size=16, classes=3, channels=3, seed=0):
    """Images whose first pixel is their label, so that a label can be found again."""
    rng = np.random.default_rng(seed)
    found = {}
    for part, count in (("train", train), ("test", test)):
        x = rng.integers(0, 256, (count, size, size, channels)).astype("uint8")
        x[:, 0, 0, 0] = y = np.arange(count) % classes
        found |= {f"x_{part}": x, f"y_{part}": y}
    return found


def save(path, **changes):
    kept = {k: v for k, v in {**arrays(), **changes}.items() if v is not None}
    np.savez(path, **kept)
    return path


def load_npz(path, **options):
    return datasets.load("npz", path, **{"image_size": 16, **options})


def check_pairs(data, originals):
    """Every image is one of the originals, in [-1, 1], with its own label, in another order."""
    for part in ("train", "test"):
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        pixels = np.rint((x + 1) * 127.5)
        np.testing.assert_allclose(2 * (pixels / 255) - 1, x, atol=1e-6)
        np.testing.assert_array_equal(pixels[:, 0, 0, 0], y)
        order = lambda images: sorted(image.astype("uint8").tobytes() for image in images)
        assert order(pixels) == order(originals[f"x_{part}"])
        assert not np.array_equal(pixels, originals[f"x_{part}"])


@pytest.mark.parametrize("kind", ["uint8", "int64", "float32", "float64"])
def test_an_npz_of_integers_or_floats(tmp_path, kind):
    originals = arrays()
    images = {}
    for name in ("x_train", "x_test"):
        integer = np.issubdtype(kind, np.integer)
        images[name] = (originals[name] / (1 if integer else 255)).astype(kind)
    data = load_npz(save(tmp_path / "birds.npz", **images))
    check(data, 16, 3, 30, 12)
    check_pairs(data, originals)
    assert data.name == "birds"
    assert data.classes == 3
    assert_same(data, load_npz(tmp_path / "birds.npz"))


def test_an_npz_with_labels_as_a_column_and_grey_images(tmp_path):
    column = {name: y[:, None] for name, y in arrays().items() if name.startswith("y")}
    check_pairs(load_npz(save(tmp_path / "column.npz", **column)), arrays())
    grey = arrays(channels=1)
    squeezed = {name: x[..., 0] for name, x in grey.items() if name.startswith("x")}
    data = load_npz(save(tmp_path / "grey.npz", **squeezed))
    check(data, 16, 1, 30, 12)
    check_pairs(data, grey)


def test_images_that_are_not_square_have_the_size_of_their_shorter_side(tmp_path):
    wide = {name: x[:, :, :12] for name, x in arrays().items() if name.startswith("x")}
    save(tmp_path / "tall.npz", **wide)
    assert load_npz(tmp_path / "tall.npz", image_size=12).image_shape == (16, 12, 3)
    with pytest.raises(ValueError, match=r"16×12 pixels.*image_size=12"):
        load_npz(tmp_path / "tall.npz")


@pytest.mark.parametrize(
    ("count", "expected"),
    [(100, [2, 5, 30]), (12, [2, 5, 5]), (9, [2, 3, 4]), (3, [1, 1, 1]), (37, [2, 5, 30])],
)
def test_so_many_images_with_equally_many_of_each_class(tmp_path, count, expected):
    labels = np.repeat([0, 1, 2], [30, 2, 5])
    images = arrays(train=37)["x_train"]
    images[:, 0, 0, 0] = labels
    save(tmp_path / "few.npz", x_train=images, y_train=labels)
    data = load_npz(tmp_path / "few.npz", train_images=count, test_images=5)
    assert len(data.y_test) == 5
    assert data.classes == 3
    assert sorted(counts(data.y_train)) == expected


def folder(root, suffix="png", classes=("ant", "bee"), sizes=((16, 16),), count=3):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for label, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                height, width = sizes[number % len(sizes)]
                pixels = rng.integers(0, 256, (height, width, 3)).astype("uint8")
                pixels[:, :, 0] = 40 + 120 * label  # a JPEG keeps a colour's mean
                image = Image.fromarray(pixels)
                image.save(root / part / name / f"{number}.{suffix}")
    return root


def load_folder(path, **options):
    return datasets.load("folder", path, **{"image_size": 16, **options})


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "JPG", "PNG"])
def test_a_folder_of_images(tmp_path, suffix):
    root = folder(tmp_path / "insects", suffix)
    data = load_folder(root)
    check(data, 16, 3, 6, 6)
    assert (data.name, data.classes) == ("insects", 2)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        red = (x[..., 0].mean(axis=(1, 2)) + 1) * 127.5
        np.testing.assert_allclose(red, 40 + 120 * y, atol=12)  # classes in alphabetical order
    if suffix.lower() == "png":
        known = {
            np.asarray(Image.open(file)).tobytes() for file in (root / "train").rglob(f"*.{suffix}")
        }
        assert known == {x.astype("uint8").tobytes() for x in np.rint((data.x_train + 1) * 127.5)}


def test_a_folder_of_mixed_formats_and_modes(tmp_path):
    root = folder(tmp_path / "insects")
    Image.open(root / "train/ant/0.png").save(root / "train/ant/9.jpg")
    Image.open(root / "train/ant/1.png").convert("L").save(root / "train/bee/grey.png")
    Image.open(root / "train/ant/1.png").convert("P").save(root / "train/bee/palette.png")
    Image.open(root / "train/ant/1.png").convert("RGBA").save(root / "train/bee/alpha.png")
    (root / "train/ant/notes.txt").write_text("not an image")
    (root / "readme.md").write_text("not a class")
    data = load_folder(root)
    check(data, 16, 3, 10, 6)


def test_sixteen_bits_are_scaled_or_refused_but_not_cut_off(tmp_path):
    root = folder(tmp_path / "deep")
    ramp = np.linspace(0, 65535, 256).astype("uint16").reshape(16, 16)
    file = root / "train/ant/0.png"
    Image.fromarray(ramp).save(file)
    try:
        data = load_folder(root)
    except ValueError as error:
        assert str(file) in str(error)  # noqa: PT017
        return
    grey = [x for x, y in zip(data.x_train, data.y_train) if (x == x[..., :1]).all()]
    np.testing.assert_allclose(grey[0][..., 0], ramp / 32767.5 - 1, atol=0.01)


# ---- downloaded data, without a network ----


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion_mnist"])
def test_a_download_that_fails_names_the_offline_choices(monkeypatch, name):
    def fail():
        raise Exception("URL fetch failure on https://example.org: None -- no route to host")

    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", fail)
    with pytest.raises(OSError, match="no route to host") as caught:
        datasets.load(name)
    for word in (name, "photos", "digits", "data_dir", ".npz", "{train,test}"):
        assert word in str(caught.value)


@pytest.mark.parametrize(("name", "channels"), [("cifar10", 3), ("mnist", 1)])
def test_what_keras_downloads(monkeypatch, name, channels):
    originals = arrays(size=32, channels=channels)
    x_train, y_train, x_test, y_test = originals.values()
    if name == "cifar10":
        y_train, y_test = y_train[:, None], y_test[:, None]  # as keras.datasets gives them
    else:
        x_train, x_test = x_train[..., 0], x_test[..., 0]
    loaded = (x_train, y_train), (x_test, y_test)
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: loaded)
    data = datasets.load(name)
    check(data, 32, channels, 30, 12)
    check_pairs(data, originals)
    assert data.name == name


def test_mnist_that_lies_on_disk_needs_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: pytest.fail("downloads"))
    path = save(tmp_path / "any.npz")
    data = datasets.load("mnist", path, image_size=16)
    check_pairs(data, arrays())
    assert data.name == "mnist"
    images = datasets.load("cifar10", folder(tmp_path / "images"), image_size=16)
    check(images, 16, 3, 6, 6)


# ---- bad input ----


def test_an_unknown_data_set_lists_the_known_ones():
    with pytest.raises(ValueError, match="'svhn'") as caught:
        datasets.load("svhn")
    known = "photos digits cifar10 mnist fashion_mnist npz folder imagenet".split()
    for name in known:
        assert name in str(caught.value)
    assert list(datasets.DATASETS) == known


@pytest.mark.parametrize(
    ("name", "data_dir", "message"),
    [
        ("npz", None, "npz.*data_dir"),
        ("folder", None, "folder.*data_dir"),
        ("photos", "{tmp}", "photos.*no data_dir"),
        ("digits", "{tmp}", "digits.*no data_dir"),
        ("folder", "{tmp}/nowhere", "nowhere.*not exist"),
        ("npz", "{tmp}/nowhere.npz", "nowhere.npz.*not exist"),
        ("cifar10", "{tmp}/nowhere", "nowhere.*not exist"),
        ("folder", "{tmp}/file.npz", "folder.*file.npz"),
        ("npz", "{tmp}", "npz"),
        ("cifar10", "{tmp}/file.txt", "file.txt.*neither"),
        ("folder", "{tmp}/file.txt", "file.txt"),
        ("npz", "{tmp}/file.txt", "file.txt"),
    ],
)
def test_a_place_that_does_not_go_with_the_data_set(tmp_path, name, data_dir, message):
    (tmp_path / "file.npz").write_bytes(b"")
    (tmp_path / "file.txt").write_text("")
    data_dir = data_dir and data_dir.format(tmp=tmp_path)
    for refuse in (datasets.check_source, datasets.load):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            refuse(name, data_dir)


LABELS = np.arange(30) % 3
IMAGES = arrays()["x_train"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None}, "no x_test; it needs x_train, y_train, x_test, y_test"),
        ({"y_train": None, "x_test": None}, "no y_train, x_test;"),
        ({"y_train": LABELS[:-1]}, r"\(30, 16, 16, 3\).*\(29"),
        ({"y_train": np.eye(3, dtype=int)[LABELS]}, r"labels \[n\].*\(30, 3\)"),
        ({"y_train": LABELS * 1.0}, "integer labels.*float64"),
        ({"y_train": LABELS.astype(str)}, "integer labels"),
        ({"y_train": np.int64(3)}, "integer labels"),
        ({"y_train": LABELS - 1}, "-1"),
        ({"y_train": LABELS * 0}, "one class"),
        ({"y_test": np.zeros(12, int)}, "one class"),
        ({"x_train": IMAGES[0]}, r"\[n, height, width, channels\].*16, 16, 3"),
        ({"x_train": IMAGES.reshape(30, -1)}, r"\(30, 768\)"),
        ({"x_train": IMAGES[:, None]}, r"\(30, 1, 16, 16, 3\)"),
        ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "(empty|no image|one class)"),
        ({"x_train": IMAGES * 1.0}, r"0…1 \(floats\).*0 to 255"),
        ({"x_train": IMAGES / 127.5 - 1}, "from -1 to 1"),
        ({"x_train": IMAGES.astype("uint16") * 257}, r"0…255 \(integers\).*to 257"),
        ({"x_train": IMAGES.astype("int8")}, r"0…255 \(integers\)"),
        ({"x_train": np.where(IMAGES == 7, np.nan, IMAGES / 255)}, "nan"),
        ({"x_train": np.full(IMAGES.shape, np.inf)}, "inf"),
        ({"x_train": IMAGES.astype(str)}, "images"),
        ({"x_train": np.array([None] * 30)}, "cannot be read"),
        ({"x_test": arrays(size=8)["x_test"]}, r"\(16, 16, 3\).*\(8, 8, 3\)"),
        ({"x_test": arrays(channels=1)["x_test"]}, r"\(16, 16, 3\).*\(16, 16, 1\)"),
    ],
)
def test_an_npz_that_is_no_data_set_is_refused_by_name(tmp_path, changes, message):
    path = save(tmp_path / "bad.npz", **changes)
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load_npz(path)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_an_image_size_that_data_on_disk_does_not_have_says_what_to_pass(tmp_path):
    path = save(tmp_path / "data.npz")
    with pytest.raises(ValueError, match=r"16×16 pixels, but image_size is 32.*image_size=16"):
        datasets.load("npz", path)


# NumPy leaves a file open that it cannot read.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("damage", ["empty", "garbage", "cut", "flipped", "npy", "folder"])
def test_a_corrupt_npz_is_named(tmp_path, damage):
    path = tmp_path / "broken.npz"
    content = save(tmp_path / "good.npz").read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes(b ^ 255 for b in content[middle : middle + 9])
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, IMAGES)
    elif damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(
            {
                "empty": b"",
                "garbage": b"PK\x03\x04 and nothing else",
                "cut": content[:middle],
                "flipped": flipped + content[middle + 9 :],
            }[damage]
        )
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_npz(path)


def remove(root, part):
    shutil.rmtree(root / part)


def one_class(root):
    remove(root, "train/bee")
    remove(root, "test/bee")


def test_a_folder_that_is_empty_or_incomplete_says_so(tmp_path):
    cases = {
        "no_train": (lambda root: remove(root, "train"), "no_train.*train/"),
        "no_test": (lambda root: remove(root, "test"), "no_test.*test/"),
        "empty": (lambda root: [remove(root, "train"), remove(root, "test")], "empty.*train/"),
        "one": (one_class, "one has one class"),
        "no_images": (lambda root: [f.unlink() for f in root.rglob("bee/*.png")], "bee"),
        "mismatch": (lambda root: remove(root, "test/bee"), "test has 1 classes.* 2; .*bee"),
        "more": (lambda root: (root / "test/cat").mkdir(), "test has 3 classes.* 2; .*cat"),
    }
    for name, (damage, message) in cases.items():
        root = folder(tmp_path / name)
        damage(root)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_folder(root)
    root = tmp_path / "hollow"
    (root / "train").mkdir(parents=True)
    (root / "test").mkdir()
    with pytest.raises(ValueError, match=r"hollow.*train.*neither"):
        load_folder(root)


def test_images_of_mixed_sizes_are_named(tmp_path):
    root = folder(tmp_path / "mixed", sizes=((16, 16), (16, 20)))
    with pytest.raises(ValueError, match=r"(?s)(0.png).*\(16, 16\).*(1.png).*\(16, 20\)"):
        load_folder(root)
    root = folder(tmp_path / "other", classes=("ant", "bee"))
    for file in (root / "test").rglob("*.png"):
        Image.open(file).resize((20, 20)).save(file)
    with pytest.raises(ValueError, match=r"other.*\(16, 16, 3\).*\(20, 20, 3\)"):
        load_folder(root)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_corrupt_image_is_named(tmp_path, suffix):
    root = folder(tmp_path / "broken", suffix)
    file = root / "train" / "bee" / f"1.{suffix}"
    content = file.read_bytes()
    damaged = [b"", b"no image", content[:20], content[: len(content) // 2]]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(file))):
            load_folder(root)


def test_any_flipped_byte_of_a_png_is_read_or_named(tmp_path):
    root = folder(tmp_path / "flipped", count=1)
    file = root / "train" / "bee" / "0.png"
    content = file.read_bytes()
    refused = 0
    for place in range(0, len(content), 5):
        file.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            load_folder(root)
        except ValueError as error:
            assert str(file) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 20


# ---- fingerprints ----


def test_a_fingerprint_of_an_npz_is_its_content(tmp_path):
    path = save(tmp_path / "a.npz")
    first = datasets.fingerprint(path)
    copy = shutil.copy(path, tmp_path / "b.npz")
    assert datasets.fingerprint(copy) == first
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert datasets.fingerprint(path) != first
    assert datasets.fingerprint(None) == ""


def test_a_fingerprint_of_a_folder_changes_with_it(tmp_path):
    root = folder(tmp_path / "a")
    seen = {datasets.fingerprint(root)}
    assert datasets.fingerprint(shutil.copytree(root, tmp_path / "b")) in seen

    file = root / "train" / "ant" / "0.png"
    content = file.read_bytes()
    file.write_bytes(content + b"more")
    seen.add(datasets.fingerprint(root))
    file.write_bytes(content)
    file.rename(file.with_name("other.png"))
    seen.add(datasets.fingerprint(root))
    (root / "train" / "ant").rename(root / "train" / "moth")
    seen.add(datasets.fingerprint(root))
    (root / "test" / "bee" / "2.png").unlink()
    seen.add(datasets.fingerprint(root))
    assert len(seen) == 5


def test_a_fingerprint_of_a_folder_sees_other_images_of_the_same_size(tmp_path):
    root = folder(tmp_path / "a")
    first = datasets.fingerprint(root)
    file = root / "train" / "ant" / "0.png"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert datasets.fingerprint(root) != first
