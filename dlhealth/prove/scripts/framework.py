"""Each framework computes on the GPU.

What it proves: PyTorch, TensorFlow and JAX, in each Python environment that was found, are imported and compute on the
GPU. A product of matrices, a convolution with its gradients and a product in half precision agree with the CPU.
What it needs: an environment with a framework. It runs as the owner of the environment, with the variables of a terminal
of that person.
Limits: a conda environment is used by its Python, without what its activation sets. Without a GPU, everything is
computed on the CPU, which says nothing of the GPU. What a framework computes with several GPUs together is not tested.

WORDS is the framework: torch, tensorflow or jax.
"""

from __future__ import annotations

import time
from typing import Any

from dlhealth.prove.scripts.common import (
    Device,
    NotRun,
    chosen,
    compare,
    done,
    figure,
    seconds_of,
    without_gpu,
)

EXACT = 1e-4
"""How far a result in single precision may be from the CPU's in double precision, relative to its size."""
HALF = 0.02
"""The same in half precision, with 8 to 11 bits."""
SIZE = 256
LARGE = {True: 4096, False: 512}
"""Rows of the matrices whose product is timed, on a GPU and on a CPU: less than a second even on a small GPU."""


def prove(gpu: str, words: list[str]) -> tuple[Device, str]:
    """Test one framework."""
    name = words[0]
    began = time.perf_counter()
    checks: dict[str, Any] = {"torch": _torch, "tensorflow": _tensorflow, "jax": _jax}
    device, version, half = checks[name](gpu, began)
    where = f" on {device.title}" if device.gpu else ""
    return device, f"{version}{where}: product, convolution, its gradients and {half} are right"


def _inputs() -> tuple[Any, Any, Any, Any]:
    """Two matrices, images (number, height, width, channels) and the weights of a convolution (height, width, channels,
    filters)."""
    import numpy

    source = numpy.random.RandomState(7)
    shapes = ((SIZE, SIZE), (SIZE, SIZE), (4, 16, 16, 8), (3, 3, 8, 16))
    a, b, images, weights = (source.standard_normal(shape) for shape in shapes)
    return a, b, images, weights


def _convolved(images: Any, weights: Any) -> tuple[Any, Any, Any]:
    """The sum of squares of a convolution without padding, halved, and its gradients, in double precision by NumPy."""
    import numpy

    height, width = (images.shape[i] - weights.shape[i - 1] + 1 for i in (1, 2))
    windows = {
        (y, x): images[:, y : y + height, x : x + width]
        for y in range(weights.shape[0])
        for x in range(weights.shape[1])
    }
    result = sum(numpy.tensordot(window, weights[y, x], 1) for (y, x), window in windows.items())
    by_images, by_weights = numpy.zeros_like(images), numpy.zeros_like(weights)
    for (y, x), window in windows.items():
        by_images[:, y : y + height, x : x + width] += numpy.tensordot(result, weights[y, x].T, 1)
        by_weights[y, x] = numpy.tensordot(window, result, ([0, 1, 2], [0, 1, 2]))
    return result, by_images, by_weights


def _compare_convolution(result: Any, by_images: Any, by_weights: Any, images: Any, weights: Any) -> None:
    expected = _convolved(images, weights)
    names = ("the convolution", "the gradient of the convolution by its images", "the gradient by its weights")
    for name, computed, right in zip(names, (result, by_images, by_weights), expected):
        compare(name, computed, right, EXACT)


def _torch(gpu: str, began: float) -> tuple[Device, str, str]:
    from dlhealth.prove.scripts.pytorch import loaded, wait

    torch, device = loaded(gpu)
    figure("time to import, s", time.perf_counter() - began)
    a, b, images, weights = _inputs()

    def there(array: Any) -> Any:
        return torch.tensor(array, dtype=torch.float32, device=device.name)

    compare("the product of matrices", (there(a) @ there(b)).cpu().numpy(), a @ b, EXACT)
    done(0.3)
    x = there(images.transpose(0, 3, 1, 2)).requires_grad_()
    w = there(weights.transpose(3, 2, 0, 1)).requires_grad_()
    result = torch.nn.functional.conv2d(x, w)
    (result.pow(2).sum() / 2).backward()
    _compare_convolution(
        result.detach().cpu().numpy().transpose(0, 2, 3, 1),
        x.grad.cpu().numpy().transpose(0, 2, 3, 1),
        w.grad.cpu().numpy().transpose(2, 3, 1, 0),
        images,
        weights,
    )
    done(0.6)
    kind = torch.float16 if device.gpu else torch.bfloat16
    with torch.autocast(device.name.type, dtype=kind):
        product = there(a) @ there(b)
    if product.dtype is not kind:
        raise NotRun(f"mixed precision computed with {product.dtype} instead of {kind}")
    compare("the product in half precision", product.float().cpu().numpy(), a @ b, HALF)
    large = torch.ones((LARGE[device.gpu],) * 2, device=device.name)

    def multiply() -> None:
        large @ large
        wait(torch, device)

    _speed(multiply, device)
    return device, f"PyTorch {torch.__version__}", "mixed precision"


def _tensorflow(gpu: str, began: float) -> tuple[Device, str, str]:
    import tensorflow as tf

    version = f"TensorFlow {tf.__version__}"
    if int(tf.__version__.split(".")[0]) < 2:
        raise NotRun(f"{version} is too old for this test: it needs TensorFlow 2")
    figure("time to import, s", time.perf_counter() - began)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        index = chosen(gpu, len(gpus), version)
        for one in gpus:
            tf.config.experimental.set_memory_growth(one, True)
        title = str(tf.config.experimental.get_device_details(gpus[index]).get("device_name", "a GPU"))
        device = Device(f"/GPU:{index}", True, title)
        tf.config.experimental.enable_tensor_float_32_execution(False)
    else:
        built = bool(tf.test.is_built_with_cuda())
        device = without_gpu(version, built, "its log says why (TF_CPP_MIN_LOG_LEVEL=0)")
        device.name = "/CPU:0"
    a, b, images, weights = _inputs()
    with tf.device(device.name):

        def there(array: Any) -> Any:
            return tf.constant(array, dtype=tf.float32)

        product = tf.matmul(there(a), there(b))
        if device.gpu and "GPU" not in product.device:
            raise NotRun(f"TensorFlow computed on {product.device} instead of the GPU")
        compare("the product of matrices", product.numpy(), a @ b, EXACT)
        done(0.3)
        x, w = there(images), there(weights)
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            result = tf.nn.conv2d(x, w, 1, "VALID")
            loss = tf.reduce_sum(result**2) / 2
        by_images, by_weights = tape.gradient(loss, [x, w])
        _compare_convolution(result.numpy(), by_images.numpy(), by_weights.numpy(), images, weights)
        done(0.6)
        half = tf.matmul(tf.cast(there(a), tf.float16), tf.cast(there(b), tf.float16))
        compare("the product in half precision", half.numpy(), a @ b, HALF)
        large = tf.ones((LARGE[device.gpu],) * 2)
        _speed(lambda: tf.reduce_sum(tf.matmul(large, large)).numpy(), device)
    return device, version, "half precision"


def _jax(gpu: str, began: float) -> tuple[Device, str, str]:
    from importlib.util import find_spec

    import jax
    import jax.numpy as jnp

    version = f"JAX {jax.__version__}"
    figure("time to import, s", time.perf_counter() - began)
    try:
        gpus, why = jax.devices("gpu"), ""
    except RuntimeError as error:
        gpus, why = [], (str(error).splitlines() or ["it does not say why"])[0]
    if gpus:
        device = Device(gpus[chosen(gpu, len(gpus), version)], True, "")
        device.title = device.name.device_kind
    else:
        built = any(find_spec(f"jax_cuda{number}_plugin") for number in (11, 12, 13))
        device = without_gpu(version, built, why)
        device.name = jax.devices("cpu")[0]
    a, b, images, weights = _inputs()

    def there(array: Any) -> Any:
        return jax.device_put(jnp.asarray(array, dtype=jnp.float32), device.name)

    import numpy

    highest = jax.lax.Precision.HIGHEST
    compare("the product of matrices", numpy.asarray(jnp.matmul(there(a), there(b), precision=highest)), a @ b, EXACT)
    done(0.3)

    def convolve(x: Any, w: Any) -> Any:
        form = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=form, precision=highest)

    x, w = there(images), there(weights)
    by_images, by_weights = jax.grad(lambda x, w: (convolve(x, w) ** 2).sum() / 2, (0, 1))(x, w)
    result = convolve(x, w)
    _compare_convolution(numpy.asarray(result), numpy.asarray(by_images), numpy.asarray(by_weights), images, weights)
    done(0.6)
    half = jnp.matmul(there(a).astype(jnp.float16), there(b).astype(jnp.float16))
    compare("the product in half precision", numpy.asarray(half).astype("float32"), a @ b, HALF)
    large = there(numpy.ones((LARGE[device.gpu],) * 2))
    _speed(lambda: jnp.matmul(large, large).block_until_ready(), device)
    return device, version, "half precision"


def _speed(multiply: Any, device: Device) -> None:
    operations = 2 * LARGE[device.gpu] ** 3
    figure("product of matrices, TFLOP/s", operations / seconds_of(multiply, 3) / 1e12)
