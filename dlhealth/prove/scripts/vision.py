"""Networks of real size compute on the GPU.

What it proves: a network with the shape of ResNet-50 computes what the CPU computes, in single and in half precision,
and is trained; a detector learns to find squares in generated images, and finds the same ones as on the CPU.
What it needs: an environment with PyTorch. With --video also OpenCV: then the detector runs on a video or a camera.
Limits: the images are generated and the weights random, so nothing is said of the accuracy of ResNet-50. It uses one
GPU, and smaller batches on one with little memory.

WORDS is a video file or the number of a camera, or empty.
"""

from __future__ import annotations

import time
from typing import Any

from dlhealth.prove.scripts.common import (
    Device,
    NotRun,
    Wrong,
    compare,
    curve,
    done,
    figure,
    seconds_of,
)
from dlhealth.prove.scripts.pytorch import loaded, wait

EXACT, HALF = 0.02, 0.1
"""How far what 53 layers compute may be from the CPU's in double precision, relative to its size: in single and in half
precision."""
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Channels, blocks and stride of ResNet-50."""
CLASSES = 1000
SIZE = {True: 224, False: 64}
BATCH = {True: 16, False: 2}
STEPS = {True: 10, False: 2}
GRID, CELL = 8, 8
"""The detector's image has GRID x GRID cells of CELL x CELL pixels, with one square in it."""
LEARN = 250
FOUND = 0.9
FRAMES = 100


def prove(gpu: str, words: list[str]) -> tuple[Device, str]:
    """Run both networks."""
    torch, device = loaded(gpu)
    torch.manual_seed(7)
    _agrees(torch, device)
    done(0.3)
    batch = _fitting(torch, device)
    done(0.5)
    detector = _detector(torch).to(device.name)
    found = _learn(torch, device, detector)
    figure("squares found, %", 100 * found)
    if found < FOUND:
        raise Wrong(f"the detector found {100 * found:.0f} % of the squares; a working machine finds {100 * FOUND:g} %")
    _loop(torch, device, detector)
    seen = _video(torch, device, detector, words[0]) if words[0] else ""
    where = f" on {device.title}" if device.gpu else ""
    return device, (
        f"PyTorch {torch.__version__}{where}: a ResNet-50 in batches of {batch}, and a detector that found "
        f"{100 * found:.0f} % of the squares{seen}"
    )


def _resnet(torch: Any) -> Any:
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        """Three convolutions, and what went in is added to what comes out."""

        def __init__(self, inside: int, width: int, stride: int) -> None:
            super().__init__()
            out = 4 * width
            self.way = nn.Sequential(
                nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out),
            )  # fmt: skip
            same = inside == out and stride == 1
            self.past = nn.Identity() if same else nn.Sequential(
                nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            return torch.relu(self.way(x) + self.past(x))

    layers: list[Any] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for width, blocks, stride in STAGES:
        for number in range(blocks):
            layers.append(Block(inside, width, 1 if number else stride))
            inside = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, CLASSES))


def _agrees(torch: Any, device: Device) -> None:
    """Compare the output and a gradient with those of the CPU in double precision. Not in training mode: the statistics
    of a small batch make small differences large."""
    model, images = _resnet(torch).double().eval(), torch.randn(4, 3, 64, 64, dtype=torch.float64)

    def answers(model: Any, images: Any) -> tuple[Any, Any]:
        model.zero_grad()
        result = model(images)
        result.float().pow(2).mean().backward()
        return result.detach().float().cpu().numpy(), model[0].weight.grad.float().cpu().numpy()

    right = answers(model, images)
    model, images = model.float().to(device.name), images.float().to(device.name)
    for what, computed, expected in zip(("output", "gradient"), answers(model, images), right):
        compare(f"the {what} of ResNet-50 in single precision", computed, expected, EXACT)
    with torch.autocast(device.name.type, dtype=torch.float16 if device.gpu else torch.bfloat16):
        half = model(images)
    compare("the output of ResNet-50 in half precision", half.detach().float().cpu().numpy(), right[0], HALF)


def _fitting(torch: Any, device: Device) -> int:
    """Time training steps with the largest batch that fits into the memory; that batch."""
    batch = BATCH[device.gpu]
    while True:
        try:
            _train(torch, device, batch)
            return batch
        except RuntimeError as error:  # a small GPU
            if "out of memory" not in str(error) or batch == 1:
                raise
        torch.cuda.empty_cache()
        batch //= 2


def _train(torch: Any, device: Device, batch: int) -> None:
    model = _resnet(torch).to(device.name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = torch.randn(batch, 3, SIZE[device.gpu], SIZE[device.gpu], device=device.name)
    labels = torch.randint(CLASSES, (batch,), device=device.name)
    for half in (False, True):
        scaler = torch.cuda.amp.GradScaler(enabled=half and device.gpu)
        kind = torch.float16 if device.gpu else torch.bfloat16

        def step() -> float:
            optimizer.zero_grad()
            with torch.autocast(device.name.type, dtype=kind, enabled=half):  # noqa: B023
                loss = torch.nn.functional.cross_entropy(model(images), labels)
            scaler.scale(loss).backward()  # noqa: B023
            scaler.step(optimizer)  # noqa: B023
            scaler.update()  # noqa: B023
            return float(loss.detach())

        last = step()
        began = time.perf_counter()
        for _ in range(STEPS[device.gpu]):
            last = step()
        wait(torch, device)
        speed = STEPS[device.gpu] * batch / (time.perf_counter() - began)
        name = "half" if half else "single"
        figure(f"ResNet-50 training in {name} precision, images/s", speed)
        if not last < float("inf"):
            raise Wrong(f"the loss of ResNet-50 became {last} in {name} precision")
    model.eval()
    with torch.no_grad():

        def classify() -> None:
            model(images)
            wait(torch, device)

        figure("ResNet-50 inference, images/s", batch / seconds_of(classify, 3))


def _detector(torch: Any) -> Any:
    """For each cell: whether the middle of a square lies in it, and where that is and how large the square, in cells."""
    nn = torch.nn

    def part(inside: int, out: int) -> list[Any]:
        return [nn.Conv2d(inside, out, 3, 2, 1), nn.BatchNorm2d(out), nn.ReLU()]

    last = [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 4, 1)]
    return nn.Sequential(*part(3, 16), *part(16, 32), *part(32, 64), *last)


def _scenes(torch: Any, device: Device, number: int) -> tuple[Any, Any, Any]:
    """Noise with one bright square in each image; the middles (x, y) and the sizes of the squares, in cells."""
    side = GRID * CELL
    sizes = torch.randint(8, 25, (number,))
    corners = (torch.rand(number, 2) * (side - sizes[:, None].float())).long()
    images = torch.rand(number, 3, side, side) * 0.4
    for image, (x, y), size in zip(images, corners.tolist(), sizes.tolist()):
        image[:, y : y + size, x : x + size] += 0.4
    middles = (corners.float() + sizes[:, None].float() / 2) / CELL
    return images.to(device.name), middles.to(device.name), (sizes.float() / CELL).to(device.name)


def _learn(torch: Any, device: Device, detector: Any) -> float:
    """Train the detector; which part of the squares in new images it finds."""
    functional = torch.nn.functional
    optimizer = torch.optim.Adam(detector.parameters(), lr=0.003)
    detector.train()
    for number in range(LEARN):
        images, middles, sizes = _scenes(torch, device, 32)
        cells = middles.long().clamp(max=GRID - 1)
        here = torch.arange(len(images), device=device.name), cells[:, 1], cells[:, 0]
        answer = detector(images).permute(0, 2, 3, 1)
        target = torch.zeros_like(answer[..., 0])
        target[here] = 1
        boxes = torch.cat((middles - cells, sizes[:, None]), 1)
        loss = functional.binary_cross_entropy_with_logits(answer[..., 0], target) * 10
        loss = loss + functional.smooth_l1_loss(answer[here][:, 1:], boxes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number % 20 == 0:
            curve("loss of the detector", float(loss.detach()))
            done(0.5 + 0.4 * number / LEARN)
    detector.eval()
    images, middles, sizes = _scenes(torch, device, 200)
    found, widths = _detect(torch, detector, images)
    return float((_overlap(torch, found, widths, middles, sizes) > 0.5).float().mean())


def _detect(torch: Any, detector: Any, images: Any) -> tuple[Any, Any]:
    """The middle and the size of the surest square of each image, in cells."""
    with torch.no_grad():
        answer = detector(images).permute(0, 2, 3, 1).flatten(1, 2)
    best = answer[..., 0].argmax(1)
    chosen = answer[torch.arange(len(images), device=answer.device), best]
    cell = torch.stack((best % GRID, torch.div(best, GRID, rounding_mode="floor")), 1)
    return cell + chosen[:, 1:3], chosen[:, 3]


def _overlap(torch: Any, middles: Any, sizes: Any, others: Any, other_sizes: Any) -> Any:
    """The area that two squares share, relative to the area that they cover together."""
    sizes, other_sizes = sizes.clamp(min=0)[:, None], other_sizes[:, None]
    low = torch.maximum(middles - sizes / 2, others - other_sizes / 2)
    high = torch.minimum(middles + sizes / 2, others + other_sizes / 2)
    shared = (high - low).clamp(min=0).prod(1)
    return shared / (sizes[:, 0] ** 2 + other_sizes[:, 0] ** 2 - shared)


def _loop(torch: Any, device: Device, detector: Any) -> None:
    """Detect in one image after the other, as with a camera; compare with the CPU."""
    images, _, _ = _scenes(torch, device, FRAMES)
    _detect(torch, detector, images[:1])
    wait(torch, device)
    began = time.perf_counter()
    found = torch.cat([_detect(torch, detector, images[i : i + 1])[0] for i in range(FRAMES)])
    wait(torch, device)
    figure("detection, images/s", FRAMES / (time.perf_counter() - began))
    right, _ = _detect(torch, detector.double().cpu(), images.double().cpu())
    compare("the detector", found.cpu().numpy(), right.numpy(), EXACT)
    detector.float().to(device.name)


def _video(torch: Any, device: Device, detector: Any, source: str) -> str:
    """Run the detector on a video or a camera, by OpenCV."""
    try:
        import cv2
    except ImportError as error:
        raise NotRun(f"a video needs OpenCV, which this environment lacks: {error}") from error
    video = cv2.VideoCapture(int(source) if source.isdigit() else source)
    frames, began = 0, time.perf_counter()
    while frames < FRAMES:
        read, frame = video.read()
        if not read:
            break
        small = cv2.resize(frame, (GRID * CELL, GRID * CELL))
        _detect(torch, detector, torch.from_numpy(small).permute(2, 0, 1)[None].to(device.name).float() / 255)
        frames += 1
    video.release()
    if not frames:
        raise NotRun(f"OpenCV reads no image from {source}")
    figure("frames of the video/s", frames / (time.perf_counter() - began))
    return f", and {frames} frames of {source}"
