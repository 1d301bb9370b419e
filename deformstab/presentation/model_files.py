"""A model file → a model: files of Keras 2 and 3, and the code that a user gives beside them."""

import importlib
import importlib.util
import inspect
import pathlib
import re
import sys
import zipfile

import keras

_CHANGED = (
    *(keras.layers.DepthwiseConv1D, keras.layers.SeparableConv1D, keras.layers.Conv1DTranspose),
    *(keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.layers.Conv2DTranspose),
    keras.layers.Conv3DTranspose,
)
_UNUSED = ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
_HDF5 = b"\x89HDF\r\n\x1a\n"
# What Keras says of a class or function that it does not find, in .keras files and in .h5 files.
_UNKNOWN = re.compile(r"(?:Could not (?:locate|deserialize) \w+|Unknown [\w ]+?:?) '([^']+)'")
_MODULE = re.compile(r"'module': '([\w.]+)'|parent module ([\w.]+) cannot be imported")


def load_model(path, allow_unsafe_model: bool = False, custom_objects=None):
    """A model from a `.keras` or `.h5` file, those of Keras 2 included, not compiled.

    Args:
        path: of the file.
        allow_unsafe_model: whether code in it may run.
        custom_objects: name → class or function, as Keras takes them; see `imported`.

    Raises:
        ValueError: it cannot be loaded, or not without running code that it holds.
    """
    path = pathlib.Path(path)
    check_kind(path)
    known = dict(custom_objects or {})
    if path.suffix in (".h5", ".hdf5"):
        known = {kind.__name__: _of_keras_2(kind) for kind in _CHANGED} | known
    try:
        return keras.models.load_model(
            path, custom_objects=known, compile=False, safe_mode=not allow_unsafe_model
        )
    except Exception as error:  # of h5py, zipfile, Keras: whatever the file provokes
        raise ValueError(f"{path} was not loaded: {told(error)}") from error


def imported(module: str) -> dict:
    """Imports a Python file or a module: what Keras is to know of it, name → class or function.

    Classes that the module registers with Keras are known by that alone; the others by their name.

    Args:
        module: a path that ends in .py, or a name as in `import`; also of the working directory.

    Raises:
        ValueError: it is not there, or raises an error.
    """
    file = pathlib.Path(module)
    is_file = file.suffix == ".py"
    if is_file and not file.is_file():
        raise ValueError(f"--import_module: {module} is no file")
    folder = str(file.parent.resolve() if is_file else pathlib.Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # of what the module imports beside itself
    try:
        found = _from_file(file) if is_file else importlib.import_module(module)
    except (Exception, SystemExit) as error:  # of whatever code the user has
        raise ValueError(
            f"--import_module: {module} was not imported: {type(error).__name__}: {error}"
        ) from error
    return {
        name: value
        for name, value in vars(found).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and not str(value.__module__).startswith(("keras.", "builtins", "typing"))
    }


def _from_file(file):
    """The module in a file, under its own name: a model file may ask for that."""
    name = file.stem if file.stem not in sys.modules else f"imported_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    try:
        spec.loader.exec_module(found)
    except BaseException:
        del sys.modules[name]
        raise
    return found


def check_kind(path) -> None:
    """Says what a file is that cannot be a model: Keras says that it is not there."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a model is a .keras or .h5 file")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is no regular file; a model is a .keras or .h5 file")
    with path.open("rb") as file:
        content = file.read(512)
    start = content[: len(_HDF5)]
    if not start:
        raise ValueError(f"{path} is empty: the model was not saved whole; save it again")
    old, archive = path.suffix in (".h5", ".hdf5"), zipfile.is_zipfile(path)
    if path.suffix == ".keras" and start == _HDF5:
        raise ValueError(f"{path} is an HDF5 file; give it a name that ends in .h5")
    if old and archive:
        raise ValueError(f"{path} is a .keras file by its content; give it a name that ends so")
    if path.suffix == ".keras" and not archive:
        what = "text" if _is_text(content) else "a damaged or another kind of file"
        raise ValueError(
            f"{path} is no .keras file: it is {what}, not the archive that Keras saves"
        )
    if old and start != _HDF5:
        what = "text" if _is_text(content) else "a damaged or another kind of file"
        raise ValueError(f"{path} is no .h5 file: it is {what}, not HDF5")
    if not old and path.suffix != ".keras":
        raise ValueError(f"{path} is no model: a model is a .keras or .h5 file")


def _is_text(content: bytes) -> bool:
    text = content.decode("utf-8", "replace")
    return sum(not (letter.isprintable() or letter in "\t\n\r") for letter in text) < 2


def told(error: Exception) -> str:
    """What Keras says, in a line, and what to do about it."""
    text = " ".join(str(error).split()) or type(error).__name__
    unknown = _UNKNOWN.search(text)
    if "safe_mode" in text or "unsafe" in text.lower():
        return text + (
            " (Code in a model file runs only with --allow_unsafe_model; take that for files whose "
            "source you trust.)"
        )
    if unknown:
        module = _MODULE.search(text)
        origin = f", once in {module[1] or module[2]}," if module else ""
        return (
            f"it uses {unknown[1]}{origin} and no class or function of that name is known here; say "
            "with --import_module=FILE.py (or the name of a module) where it is defined"
        )
    return text if len(text) < 500 else f"{text[:500]}…"


def _of_keras_2(kind):
    """A layer class that passes over arguments which Keras 2 saved and never used, groups=1 and
    kernel settings of separable kernels: Keras 3 refuses them, and so every such file."""

    def from_config(cls, config):
        known = inspect.signature(kind).parameters
        unused = {name for name in _UNUSED if name not in known}
        return kind(**{name: value for name, value in config.items() if name not in unused})

    return type(kind.__name__, (kind,), {"from_config": classmethod(from_config)})
