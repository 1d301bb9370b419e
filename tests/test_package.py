"""The package as a whole: what imports what, what is public, documented, and how long files are."""

import ast
import configparser
import importlib.util
import inspect
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import zipfile

import keras
import numpy as np
import pytest
from helpers import BACKEND, ROOT, module_at, natural_images

import deformstab as ds
from deformstab.deformations import splines
from deformstab.paper.data import bundled
from deformstab.paper.runs import executors

PACKAGE = pathlib.Path(ds.__file__).parent
# The path of the data. A room imports only from rooms above it, a module only from modules above it.
ROOMS = {
    "": [
        *("_version", "extras", "checks", "backend", "backend_tensors", "files", "locks", "tables"),
        "provenance",
    ],
    "deformations": [
        *("thin_plates", "fine_grids", "flow_statistics", "splines", "landmarks", "warp", "seeds"),
        *("flows", "inputs", "flow_layer", "random_deformation", "motions", "families", "parts"),
        *("scattered_splines", "addons_checks", "addons"),
    ],
    "networks": [
        *("window_layers", "adaptive", "downsampling", "circular", "strided", "initializers"),
        *("vgg", "exchangeable", "branches", "copying", "finite", "swapping"),
        "normalization",
    ],
    "measurement": [
        *(
            "distances",
            "pairs",
            "intervals",
            "sources",
            "perturbations",
            "stimuli",
            "watching",
            "windows",
            "representations",
        ),
        *(
            "input_range",
            "passes",
            "forward",
            "layer_distances",
            "sensitivity",
            "parts_of_sensitivity",
            "strengths",
            "stability",
            "answers",
        ),
        *("dense_consistency", "consistency", "shifts", "smoothness"),
        *("layer_windows", "probing", "map_probes", "grids"),
        *("moving_maps", "equivariance", "summaries", "comparisons"),
        *("displacement_sets", "objectives", "ascent", "worst_rows", "worst_case"),
    ],
    "recording": [
        *("schedules", "steps", "fingerprints", "lineage", "measures", "files", "recording"),
        "callbacks",
    ],
    "presentation": [
        *("streams", "pictures", "drawing", "kinds", "plots", "heatmaps", "comparison_plots"),
        "figure_logs",
        *("examples", "example_plots", "report_data", "report_charts", "report_images", "report"),
        *("image_reader", "image_sets", "image_classes", "model_files", "preparation"),
        *("applications", "model_sources", "shell_deformations", "measure_files"),
        *("shell_request", "shell_measures", "measure_command"),
    ],
    "paper.data": ["image_files", "bundled", "datasets", "photographs", "tasks"],
    "paper.pretrained": [
        *("torch_files", "efficientnet_lite", "hed", "catalogue", "random_weights"),
    ],
    "paper.note": [
        *("sparse", "sharing", "symmetries", "maxima", "units", "maxout", "gains"),
    ],
    "paper.questions": ["noise", "shifts", "shuffles", "worst", "moving", "logits"],
    "paper.runs": [
        *("recipes", "experiments", "preset_checks", "pretrained_experiments", "note_experiments"),
        "question_experiments",
        *(
            "preset",
            "presets",
            "output_folder",
            "training",
            "training_data",
            "network_measurements",
            "pretrained_measurements",
        ),
        *("note_measurements", "question_measurements", "apart"),
        *(
            "executors",
            "locks",
            "kept_networks",
            "run_files",
            "runs",
            "progress",
            "measuring_again",
        ),
    ],
    "paper.verdicts": [
        *("result_tables", "statistics", "claim_notes", "claims", "claims_by_choice"),
        *("changes_by_kind", "training_paths", "pooling_shifts", "approximations"),
        *("other_networks", "note_statements", "question_rules", "question_tables"),
        *("statistics_of_stability", "statistics_of_training", "statistics_of_errors"),
        *("questions_of_stability", "questions_of_training", "questions_of_errors", "questions"),
    ],
    "paper.figures": [
        *("style", "figure1", "figure2", "figure3", "figure4", "figure5", "approximation"),
        *("pooling", "over_training", "trajectory", "pretrained", "note", "questions"),
        "catalogue",
    ],
    "paper.pages": [
        *("other_networks_page", "note_page", "questions_page", "claims_page", "folder_page"),
        "browser_page",
    ],
    "paper": ["reproduce"],
}
ORDER = [f"{room}.{module}".strip(".") for room, modules in ROOMS.items() for module in modules]
# pictures is imported when something is drawn, and needs matplotlib for its class.
LIBRARY = [
    name for name in ORDER if not name.startswith("paper") and name != "presentation.pictures"
]
FUNCTIONS = [
    *("measure_sensitivity", "paper_deformation", "filter_smoothness", "vgg", "paper_layers"),
    *("normalized_total_variation", "cosine_distance", "euclidean_distance"),
    *("reestimate_batch_normalization", "swap_downsampling", "sensitivity_by_strength"),
    *("compare_sensitivity", "prediction_consistency", "plot_sensitivity"),
    *("sensitivity_by_part", "measure_stability", "measure_equivariance"),
    *("worst_deformation", "shift_consistency"),
    *("plot_heatmap", "plot_comparison", "plot_measures", "plot_examples"),
    *("report_examples", "write_report", "figure_to"),
    *("addons.interpolate_spline", "addons.dense_image_warp", "addons.sparse_image_warp"),
]
CLASSES = [
    *("RandomDeformation", "RandomDiffeomorphism", "RandomTranslation", "RandomRotation"),
    *("RandomScaling", "SensitivityCallback", "SmoothedInitializer"),
]
CONSTANTS = [
    "CIFAR10_BLOCKS",
    "IMAGENET_BLOCKS",
    "DOWNSAMPLING_KINDS",
    "PAPER_KINDS",
    "SWAP_KINDS",
    "__version__",
]


def public(name):
    value = ds
    for part in name.split("."):
        value = getattr(value, part)
    return value


def imports_of(path):
    """The package's own modules that a file imports anywhere, functions included: "room.module"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide where things come from"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        own = [name.removeprefix("deformstab.") for name in names if name.startswith("deformstab")]
        # What is imported may be a module or a name in one.
        found |= {name if name in ORDER else name.rpartition(".")[0] for name in own}
    return found


def top_level_imports(path):
    """Names of packages that are imported when the file is."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


def file_of(name):
    return PACKAGE / f"{name.replace('.', '/')}.py"


def test_every_module_stands_in_a_room():
    found = {path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")}
    found = {".".join(path.parts) for path in found if path.name != "__init__"}
    assert found == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_modules_import_only_from_modules_above_them(name):
    allowed = {*ORDER[: ORDER.index(name)]}
    assert imports_of(file_of(name)) <= allowed


@pytest.mark.parametrize("room", [room for room in ROOMS if room])
def test_a_room_says_what_comes_in_and_what_goes_out_and_nothing_else(room):
    tree = ast.parse((PACKAGE / room.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    (only,) = tree.body
    lines = ast.get_docstring(tree).splitlines()
    assert isinstance(only, ast.Expr)
    assert len(lines) <= 4
    assert any(line.startswith("In: ") and "Out: " in " ".join(lines) for line in lines)


def test_the_checker_of_imports_can_see(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "import deformstab.deformations.warp\nfrom deformstab.networks import vgg\n"
        "def f():\n    from deformstab.paper.runs.runs import run\n"
    )
    assert imports_of(file) == {"deformations.warp", "networks.vgg", "paper.runs.runs"}


@pytest.mark.parametrize("name", LIBRARY)
def test_heavy_packages_are_imported_only_where_they_are_used(name):
    heavy = {
        "absl",
        "seaborn",
        "matplotlib",
        "tensorflow",
        "jax",
        "torch",
        "PIL",
        "sklearn",
        "skimage",
    }
    assert not top_level_imports(file_of(name)) & heavy


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_files_are_short_enough_to_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


# ---- importing ----


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment},
        capture_output=True,
        text=True,
    )


def test_importing_brings_in_nothing_that_is_not_needed():
    # Keras itself imports absl; what counts is what comes on top.
    result = python(
        """
        import sys
        import keras
        before = set(sys.modules)
        import deformstab
        new = {name.split(".")[0] for name in set(sys.modules) - before}
        print(sorted(new & {"absl", "seaborn", "matplotlib", "sklearn", "skimage", "PIL", "paper"}))
        print("deformstab.paper" in sys.modules)
        for backend in {"tensorflow", "jax", "torch"} - {keras.backend.backend()}:
            assert backend not in new, backend
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["[]", "False"]


@pytest.mark.parametrize("missing", ["keras", "the backend"])
def test_without_a_backend_the_import_says_what_to_install(missing):
    result = python(
        f"""
        import sys

        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {["keras"] if missing == "keras" else ["tensorflow"]}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Missing())
        import deformstab
        """,
        KERAS_BACKEND="tensorflow",
    )
    assert result.returncode == 1
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: ")
    for words in ("deformstab", 'pip install "deformstab[tensorflow]"', "[jax]", "[torch]"):
        assert words in message


# ---- public names and their documentation ----


def test_public_names_are_there_and_no_others():
    for name in [*FUNCTIONS, *CLASSES, *CONSTANTS]:
        assert public(name) is not None
    public_names = {name.split(".")[0] for name in [*FUNCTIONS, *CLASSES, *CONSTANTS]}
    assert set(dir(ds)) == public_names - {"__version__"}


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_public_names_are_documented(name):
    value = public(name)
    text = inspect.getdoc(value)
    headings = ["Args", "Example"] if inspect.isclass(value) else ["Args", "Returns", "Example"]
    for heading in headings:
        assert re.search(rf"^{heading}:$", text, flags=re.MULTILINE), f"{name} has no {heading}:"
    described = text.split("Args:")[1]
    parameters = inspect.signature(value.__init__ if inspect.isclass(value) else value).parameters
    for parameter in parameters:
        if parameter not in ("self", "kwargs"):
            assert re.search(
                rf"^ +\*{{0,2}}(\w+,\s+)*{parameter}(,\s+\w+)*:", described, re.MULTILINE
            ), f"{name} does not describe {parameter}"


@pytest.mark.parametrize("method", ["draw", "flow", "deform", "move_points"])
def test_public_methods_are_documented(method):
    text = inspect.getdoc(getattr(ds.RandomDeformation, method))
    assert "Args:" in text
    assert "Returns:" in text


@pytest.fixture
def session(tmp_path, monkeypatch):
    """What examples in docstrings take for granted, in miniature."""
    monkeypatch.chdir(tmp_path)
    images = natural_images(8, 32, 32)
    model = ds.vgg((32, 32, 3), 10, ((1, 4), (1, 4)), seed=0)
    model.compile("sgd", "mse")
    names = {
        "ds": ds,
        "np": np,
        "keras": keras,
        "images": images,
        "model": model,
        "x_train": images,
        "y_train": np.zeros((8, 10), "float32"),
        "x_test": images,
        "x": natural_images(8, 5, 5).reshape(8, -1),
        "y": natural_images(8, 5, 5, seed=1).reshape(8, -1),
        "points": np.random.default_rng(0).random((2, 7, 2)),
        "values_there": np.random.default_rng(1).random((2, 7, 3)),
        "queries": np.random.default_rng(2).random((2, 5, 2)),
    }
    inside = 4 + splines.control_grid(3, 24, 24)[None].astype("float32")
    names |= {"dest": inside, "source": inside + np.float32(0.5)}
    names["layer"] = ds.RandomDeformation()
    if BACKEND == "tensorflow":
        import tensorflow as tf

        names["dataset"] = tf.data.Dataset.from_tensor_slices(images)
    return names


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_examples_in_docstrings_run(name, session):
    blocks = re.findall(r"```python\n(.*?)```", inspect.getdoc(public(name)), flags=re.DOTALL)
    assert blocks, f"{name} shows no example"
    for block in blocks:
        if "dataset" in block and BACKEND != "tensorflow":
            continue
        exec(compile(block, name, "exec"), session)


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_public_functions_say_their_types(name):
    value = public(name)
    signature = inspect.signature(value)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, f"{name}: {parameter}"
    if not inspect.isclass(value):
        assert signature.return_annotation is not signature.empty


def test_the_script_that_is_type_checked_names_all_that_is_public():
    script = (ROOT / "tests" / "user_script.py").read_text(encoding="utf-8")
    for name in [*FUNCTIONS, *CLASSES, *CONSTANTS]:
        assert re.search(rf"\bds\.{re.escape(name)}\b", script), name


def test_what_is_said_of_the_package_is_said_alike():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    author = setup["metadata"]["author"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"name: {author}" in citation
    assert f"version: {ds.__version__}" in citation
    assert author in (ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", ["skimage.data", "sklearn.datasets", "ray"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    photograph, digits = bundled.photograph.__wrapped__, bundled.digits
    use, extra = {
        "skimage.data": (lambda: photograph("coffee", 16), "reproduce"),
        "sklearn.datasets": (lambda: digits(8), "reproduce"),
        "ray": (lambda: executors.on_ray(), "ray"),
    }[module]
    with pytest.raises(ImportError, match=rf'need: pip install "deformstab\[{extra}\]"'):
        use()


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()
    assert re.fullmatch(r"\d+\.\d+\.\d+\w*", ds.__version__)


# ---- installing ----


INSTALL = PACKAGE.parent / ".ci" / "install.py"


def test_uv_is_told_what_pip_is_told():
    """As `pip config list` writes it; what the environment says comes first, and counts."""
    install = module_at(INSTALL)
    listed = """\
:env:.find-links='/wheels'
global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
global.find-links='/others'
user.timeout='60'
"""
    assert install.settings(listed) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
    }


def test_what_is_installed_is_compiled_though_python_is_told_to_write_nothing(tmp_path):
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        about = {
            "METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        for name, text in about.items():
            archive.writestr(f"tiny-1.0.dist-info/{name}", text)
    target = tmp_path / "installed"
    command = [sys.executable, INSTALL, sys.executable, "--no-index", "--no-deps"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*command, "--target", target, wheel], env=environment, check=True)
    assert pathlib.Path(importlib.util.cache_from_source(target / "tiny.py")).is_file()
