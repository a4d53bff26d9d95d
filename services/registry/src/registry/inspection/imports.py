"""What an import in a pickle means. It fails closed.

Three lists decide, in this order. picklescan (its list of known attacks grows with every advisory) and our own few
additions say UNSAFE. The allow list of what well-known libraries really write into pickles says nothing. Everything
else is at least a WARNING, and UNSAFE when it is certain to exist where the pickle is loaded: Python's own library,
or an attribute of an attribute, which reaches any module that another one imported.
"""

import io
import re
import sys
from functools import lru_cache

from picklescan.scanner import SafetyLevel, scan_pickle_bytes  # type: ignore[import-untyped,unused-ignore]

from contracts.model import Severity

_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_CLASS = re.compile(r"_*[A-Z]\w*(?:\._*[A-Z]\w*)*", re.ASCII)

_LOADS = {
    ("torch.storage", "_load_from_bytes"),
    ("torch", "load"),
    ("torch.serialization", "load"),
    ("torch.jit", "load"),
    ("torch.hub", "load"),
    ("joblib", "load"),
    ("joblib.numpy_pickle", "load"),
    ("numpy", "load"),
    ("numpy.lib.npyio", "load"),
    ("numpy.lib._npyio_impl", "load"),
    ("pandas", "read_pickle"),
    ("torch.fx.graph_module", "reduce_graph_module"),
    ("torch.fx.graph_module", "reduce_package_graph_module"),
}
# They run code that the pickle itself carries, or read files that it names.
_NEVER = (
    "cloudpickle",
    "dill",
    "joblib.numpy_pickle_compat",
    "pandas.io",
    "torch.package",
    "torch.utils.cpp_extension",
)

_PLAIN = (
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object"),
    *("range", "set", "slice", "str", "tuple"),
)
_NUMPY = (
    *(
        "bool",
        "bool_",
        "complex128",
        "complex64",
        "dtype",
        "float16",
        "float32",
        "float64",
        "int16",
    ),
    *(
        "int32",
        "int64",
        "int8",
        "intc",
        "longlong",
        "matrix",
        "ndarray",
        "object_",
        "str_",
    ),
    *(
        "bytes_",
        "uint16",
        "uint32",
        "uint64",
        "uint8",
        "datetime64",
        "timedelta64",
    ),
)
_TORCH = (
    *(
        "BFloat16Storage",
        "BoolStorage",
        "ByteStorage",
        "CharStorage",
        "ComplexDoubleStorage",
        "ComplexFloatStorage",
        "DoubleStorage",
        "FloatStorage",
        "HalfStorage",
    ),
    *(
        "IntStorage",
        "LongStorage",
        "QInt32Storage",
        "QInt8Storage",
        "QUInt8Storage",
        "ShortStorage",
        "Size",
        "Tensor",
        "bfloat16",
    ),
    *(
        "bool",
        "complex128",
        "complex64",
        "device",
        "float16",
        "float32",
        "float64",
        "int16",
        "int32",
    ),
    *(
        "int64",
        "int8",
        "uint8",
    ),
)
_EXACT: dict[str, frozenset[str]] = {
    module: frozenset(names)
    for modules, names in (
        (("builtins", "__builtin__"), _PLAIN),
        (("copyreg", "copy_reg"), ["_reconstructor"]),
        (("collections",), ["Counter", "OrderedDict", "defaultdict", "deque"]),
        (("datetime",), ["date", "datetime", "time", "timedelta", "timezone"]),
        (("decimal",), ["Decimal"]),
        (("fractions",), ["Fraction"]),
        (("uuid",), ["UUID"]),
        (("_codecs",), ["encode"]),
        (("numpy",), _NUMPY),
        (("numpy.dtypes",), [f"{k}DType" for k in ("Float32", "Float64", "Int32", "Int64", "Bool", "Object", "Str")]),
        (("numpy.core.multiarray", "numpy._core.multiarray"), ["_reconstruct", "scalar"]),
        (("numpy.core.numeric", "numpy._core.numeric"), ["_frombuffer"]),
        (("numpy.random._pickle",), ["__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor"]),
        (("numpy.random._mt19937",), ["MT19937"]),
        (("numpy.random._pcg64",), ["PCG64"]),
        (("numpy.random.bit_generator",), ["SeedSequence", "__pyx_unpickle_SeedSequence"]),
        (("numpy.ma", "numpy.ma.core"), ["MaskedArray", "_mareconstruct"]),
        (("joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle"), ["NumpyArrayWrapper"]),
        (("scipy.sparse", "scipy.sparse._csr", "scipy.sparse.csr"), ["csr_matrix", "csr_array"]),
        (("scipy.sparse._csc", "scipy.sparse.csc"), ["csc_matrix", "csc_array"]),
        (("scipy.sparse._coo", "scipy.sparse.coo"), ["coo_matrix", "coo_array"]),
        (("pandas.core.frame",), ["DataFrame"]),
        (("pandas.core.series",), ["Series"]),
        (("pandas.core.indexes.base",), ["Index", "_new_Index"]),
        (("pandas.core.indexes.range",), ["RangeIndex"]),
        (("pandas.core.internals.managers",), ["BlockManager", "SingleBlockManager"]),
        (("pandas._libs.internals",), ["_unpickle_block"]),
        (("xgboost.core",), ["Booster"]),
        (
            ("xgboost.sklearn",),
            [f"XGB{k}" for k in ("Classifier", "Regressor", "Ranker", "RFClassifier", "RFRegressor")],
        ),
        (("lightgbm.basic",), ["Booster"]),
        (("lightgbm.sklearn",), ["LGBMClassifier", "LGBMRegressor", "LGBMRanker"]),
        (("torch",), _TORCH),
        (("torch._utils",), ["_rebuild_parameter", "_rebuild_tensor", "_rebuild_tensor_v2"]),
        (("torch.nn.parameter",), ["Parameter"]),
        (("torch.storage",), ["TypedStorage", "UntypedStorage"]),
        (("torch._C._nn",), ["gelu"]),
        (
            ("torch.jit._pickle",),
            [*(f"build_{k}" for k in ("boollist", "doublelist", "intlist", "tensor_from_id", "tensorlist"))],
        ),
    )
    for module in modules
}
# Their classes only: functions, and what the modules themselves imported, are not covered.
_CLASSES_OF = re.compile(
    r"sklearn\.(?!utils|externals|datasets|.*tests|conftest|__check)|torch\.nn\.modules\.|sklearn\.utils\._bunch$"
)


@lru_cache(maxsize=4_096)
def judge(  # noqa: PLR0911 - one for each rule
    module: str, name: str, torchscript: bool = False
) -> tuple[Severity, str] | None:
    """The severity and why, or None when it is on the allow list. `torchscript`: the pickle lies in its archive."""
    imported = f"{module}.{name}"
    if not _MODULE.fullmatch(module) or not _MODULE.fullmatch(name):
        return Severity.UNSAFE, f"imports {imported!r}, which is no name"
    if (module, name) in _LOADS or any(module == m or module.startswith(f"{m}.") for m in _NEVER):
        return Severity.UNSAFE, f"imports {imported}, which can run code or read files"
    if name in _EXACT.get(module, ()):
        return None
    if _dangerous(module, name):
        return Severity.UNSAFE, f"imports {imported}, known to run code"
    parts = [*module.split("."), *name.split(".")]
    if parts[0] in sys.stdlib_module_names | {"__builtin__", "nt", "posix", "copy_reg", "commands"}:
        return Severity.UNSAFE, f"imports {imported} of Python's own library"
    if any(part.startswith("__") and not part.startswith(("__main__", "__torch__", "__pyx")) for part in parts):
        return Severity.UNSAFE, f"imports {imported}, an inner name"
    if torchscript and parts[0] == "__torch__":
        return None  # TorchScript's own compiled classes: its interpreter resolves them, Python cannot
    if name in sys.stdlib_module_names or ("." in name and not _CLASS.fullmatch(name)):
        return Severity.UNSAFE, f"imports {imported}, which reaches through a module"
    if _CLASSES_OF.match(module) and (
        _CLASS.fullmatch(name) or (module.startswith("sklearn.") and name.startswith(("__pyx_unpickle_", "newObj")))
    ):
        return None
    return Severity.WARNING, f"imports {imported}, which is not a well-known part of a model"


def _dangerous(module: str, name: str) -> bool:
    """picklescan's own opinion of one import, asked through its public function."""
    pickle = f"c{module}\n{name}\n.".encode()
    found = scan_pickle_bytes(io.BytesIO(pickle), "import").globals
    return not found or any(each.safety is SafetyLevel.Dangerous for each in found)
