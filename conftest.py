"""Every test starts from the same seed, and writes data sets to a folder of its own."""

import atexit
import gc
import os
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests compile much and run little.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
# JAX compiles each program once for all workers, and for the processes they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = tempfile.mkdtemp(prefix="jax")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import pytest
import xdist
from hypothesis import HealthCheck, settings

# The properties in tests/properties; --hypothesis-profile=thorough looks further.
BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
IS_JAX = BACKEND == "jax"  # which compiles each new shape
# Modules of the other backends, which may not be installed, hold no examples.
collect_ignore_glob = [
    f"keras_bsnn/_backend/_{name}.py"
    for name in ("tensorflow", "jax", "torch")
    if name != BACKEND
]
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
COMMON = {"deadline": None, "database": None, "suppress_health_check": SLOW}
settings.register_profile(
    "quick", max_examples=5 if IS_JAX else 15, derandomize=True, **COMMON
)
settings.register_profile("thorough", max_examples=400, print_blob=True, **COMMON)
settings.load_profile("quick")


def pytest_sessionstart(session):
    """Two logical CPUs, to test replicas; where tests run, and not where they wait."""
    if BACKEND != "tensorflow" or xdist.is_xdist_controller(session):
        return
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    pair = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, pair)


def pytest_collection_modifyitems(items):
    """PyTorch leaves out the cases of a test that XLA compiles."""
    if BACKEND != "torch":
        return
    from backends import NO_XLA

    for item in items:
        case = item.callspec.params if hasattr(item, "callspec") else {}
        if case.get("jit") is True or case.get("jit_compile") is True:
            item.add_marker(pytest.mark.skip(reason=NO_XLA))


def pytest_collection_finish():
    """What is imported by now stays, and need not be searched for garbage."""
    gc.freeze()
    gc.set_threshold(50_000)


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory):
    """A new folder with digits in it: an example must not print that it makes them."""
    os.environ["TFDS_DATA_DIR"] = str(tmp_path_factory.mktemp("tfds"))
    from keras_bsnn import datasets

    datasets.load("digits", "train", 32)


@pytest.fixture(autouse=True)
def fixed_seed():
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture
def replicas():
    """A strategy of two, without collectives: theirs allow one strategy a process."""
    import tensorflow as tf

    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(devices) == 2
    to_one = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, to_one)
