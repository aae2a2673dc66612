"""A network learns on the GPU.

What it proves: PyTorch trains a small convolutional network until it reads 98 % of the test images (88 % of
Fashion-MNIST, which is harder). The time is reported, and that of the CPU for a few batches.
What it needs: an environment with PyTorch, and images: scikit-learn's digits, Debian's package dataset-fashion-mnist, or
the files of MNIST in the directory of --data.
Limits: the network is small, so the GPU may be slower than the CPU. It uses one GPU.

WORDS is the directory with the files of MNIST or Fashion-MNIST, or empty.
"""

from __future__ import annotations

import gzip
import os
import struct
import time
import zlib
from typing import Any

from dlhealth.prove.scripts.common import Device, NotRun, Wrong, curve, done, figure
from dlhealth.prove.scripts.pytorch import loaded, wait

DEBIAN = "/usr/share/datasets/fashion-mnist"
IMAGES, LABELS = 2051, 2049
"""The numbers at the start of the files of MNIST."""
CRITERION = {"digits": 0.98, "MNIST": 0.98, "Fashion-MNIST": 0.88}
EPOCHS = {"digits": 60, "MNIST": 5, "Fashion-MNIST": 5}
"""Training ends when the test accuracy reaches the criterion, and fails if it does not within so many epochs."""
BATCH = 64
TIMED = 20
"""Batches whose time is compared with the CPU's."""


class Data:
    """Images (number, 1, height, width) from 0 to 1 with their labels, to train and to test."""

    def __init__(self, name: str, train: tuple[Any, Any], test: tuple[Any, Any]) -> None:
        self.name = name
        self.train = train
        self.test = test


def prove(gpu: str, words: list[str]) -> tuple[Device, str]:
    """Train until the network reads the test images."""
    torch, device = loaded(gpu)
    data = _data(words[0])
    torch.manual_seed(7)
    model = _network(torch, data.train[0].shape[-1]).to(device.name)
    images, labels = (torch.tensor(part).to(device.name) for part in data.train)
    test_images, test_labels = (torch.tensor(part).to(device.name) for part in data.test)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    began, accuracy, epoch = time.perf_counter(), 0.0, 0
    criterion, most = CRITERION[data.name], EPOCHS[data.name]
    while accuracy < criterion and epoch < most:
        epoch += 1
        order = torch.randperm(len(images)).to(device.name)
        losses = [_step(torch, model, optimizer, images[part], labels[part]) for part in order.split(BATCH)]
        loss = float(torch.stack(losses).mean())
        if not loss < float("inf"):
            raise Wrong(f"the loss became {loss} in epoch {epoch}")
        accuracy = _accuracy(torch, model, test_images, test_labels)
        curve("loss", loss)
        curve("test accuracy", accuracy)
        done(max(epoch / most, min(1.0, accuracy / criterion) ** 8))
    wait(torch, device)
    took = time.perf_counter() - began
    figure("test accuracy, %", 100 * accuracy)
    figure("epochs", epoch)
    figure("time to train, s", took)
    figure("images/s", epoch * len(images) / took)
    if device.gpu:
        figure(f"time of {TIMED} batches, s", _timed(torch, device, data))
    figure(f"time of {TIMED} batches on the CPU, s", _timed(torch, Device(torch.device("cpu"), False, ""), data))
    text = (
        f"PyTorch {torch.__version__} read {100 * accuracy:.1f} % of {len(test_images)} test images of {data.name} "
        f"after {epoch} epochs in {took:.1f} s"
    )
    if accuracy < criterion:
        raise Wrong(f"{text}; a working machine reaches {100 * criterion:g} %")
    return device, text + (f" on {device.title}" if device.gpu else "")


def _network(torch: Any, size: int) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(64 * (size // 2) ** 2, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip


def _step(torch: Any, model: Any, optimizer: Any, images: Any, labels: Any) -> Any:
    model.train()
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


def _accuracy(torch: Any, model: Any, images: Any, labels: Any) -> float:
    model.eval()
    with torch.no_grad():
        right = sum(int((model(i).argmax(1) == r).sum()) for i, r in zip(images.split(512), labels.split(512)))
    return right / len(labels)


def _timed(torch: Any, device: Device, data: Data) -> float:
    """The seconds of some batches on a device, after one to warm up."""
    torch.manual_seed(7)
    model = _network(torch, data.train[0].shape[-1]).to(device.name)
    optimizer = torch.optim.Adam(model.parameters())
    images, labels = (torch.tensor(part[:BATCH]).to(device.name) for part in data.train)
    began = 0.0
    for number in range(TIMED + 1):
        _step(torch, model, optimizer, images, labels)
        if number == 0:
            wait(torch, device)
            began = time.perf_counter()
    wait(torch, device)
    return time.perf_counter() - began


def _data(folder: str) -> Data:
    if folder:
        return _mnist(folder)
    try:
        return _digits()
    except ImportError:
        if os.path.isdir(DEBIAN):
            return _mnist(DEBIAN)
    raise NotRun(
        "there are no images to learn from: install scikit-learn in this environment, or Debian's package "
        "dataset-fashion-mnist, or name a directory with the files of MNIST (--data DIR)"
    )


def _digits() -> Data:
    """The 1797 digits of 8 x 8 pixels that scikit-learn brings; a fifth of them to test."""
    import numpy
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:, None] / 16).astype("float32")
    order = numpy.random.RandomState(7).permutation(len(images))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    labels = digits.target.astype("int64")
    return Data("digits", (images[train], labels[train]), (images[test], labels[test]))


def _mnist(folder: str) -> Data:
    """The files of MNIST or Fashion-MNIST, which have the same names; the name of the directory says which they are."""
    parts = []
    for part in ("train", "t10k"):
        images = _read(folder, part + "-images-idx3-ubyte", IMAGES)
        labels = _read(folder, part + "-labels-idx1-ubyte", LABELS)
        if len(images) != len(labels) or not len(images):
            raise NotRun(f"{folder}: {len(images)} images, but {len(labels)} labels")
        if labels.max() > 9:
            raise NotRun(f"{folder}: the labels of {part} are not digits")
        parts.append(((images[:, None] / 255).astype("float32"), labels.astype("int64")))
    name = "Fashion-MNIST" if "fashion" in os.path.abspath(folder).lower() else "MNIST"
    return Data(name, parts[0], parts[1])


def _read(folder: str, name: str, magic: int) -> Any:
    """One file of MNIST, packed or not."""
    import numpy

    path = os.path.join(folder, name)
    packed = not os.path.exists(path) and os.path.exists(path + ".gz")
    opening: Any = gzip.open if packed else open
    path += ".gz" if packed else ""
    try:
        with opening(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise NotRun(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    head = struct.Struct(">IIII" if magic == IMAGES else ">II")
    found, number, *shape = head.unpack_from(content) if len(content) >= head.size else (0, 0)
    if found != magic or shape[:1] != shape[1:]:
        raise NotRun(f"{path} is not a file of MNIST")
    values = numpy.frombuffer(content, dtype=numpy.uint8, offset=head.size)
    if values.size != number * (shape[0] ** 2 if shape else 1):
        raise NotRun(f"{path} is damaged: it says {number} entries, and holds {values.size} bytes")
    return values.reshape((number, *shape))
