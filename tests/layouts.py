"""Tiny data sets in the real layouts of CUB, Cars, SOP and Fashion-MNIST, from generated images.

Every class has its own colour pattern, so that a model can learn to tell them apart.
"""

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def picture(label: int, size: int, random: np.random.Generator) -> Image.Image:
    pattern = np.random.default_rng(label).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(pattern).resize((size, size), Image.Resampling.BICUBIC), dtype=np.int64)
    return Image.fromarray(np.clip(smooth + random.integers(-30, 31, smooth.shape), 0, 255).astype(np.uint8))


def make_cub(root: Path, classes: int = 8, images_per_class: int = 6, size: int = 40, seed: int = 0) -> Path:
    """CUB_200_2011/images.txt, image_class_labels.txt and images/NNN.Name/*.jpg; returns the root."""
    folder, random = root / "CUB_200_2011", np.random.default_rng(seed)
    names, labels = [], []
    for label in range(1, classes + 1):
        kind = f"{label:03d}.Bird_{label}"
        (folder / "images" / kind).mkdir(parents=True)
        for number in range(images_per_class):
            name = f"{kind}/Bird_{label}_{number:04d}.jpg"
            picture(label, size, random).save(folder / "images" / name)
            names.append(name)
            labels.append(label)
    (folder / "images.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    (folder / "classes.txt").write_text(
        "".join(f"{label} {label:03d}.Bird_{label}\n" for label in range(1, classes + 1))
    )
    (folder / "image_class_labels.txt").write_text("".join(f"{i} {label}\n" for i, label in enumerate(labels, 1)))
    return root


def make_cars(root: Path, classes: int = 8, images_per_class: int = 4, size: int = 40, seed: int = 0) -> Path:
    """CARS_196/cars_annos.mat with its array of structures, and car_ims/*.jpg; returns the root."""
    folder, random = root / "CARS_196", np.random.default_rng(seed)
    (folder / "car_ims").mkdir(parents=True)
    rows = []
    for number in range(classes * images_per_class):
        label = number // images_per_class + 1
        name = f"car_ims/{number + 1:06d}.jpg"
        picture(label, size, random).save(folder / name)
        rows.append((name, 1, 1, size, size, label, 0))
    fields = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
    annotations = np.array(rows, dtype=[(name, object) for name in fields])
    names = np.array([f"Car {label}" for label in range(1, classes + 1)], dtype=object)
    savemat(folder / "cars_annos.mat", {"annotations": annotations[None], "class_names": names[None]})
    return root


def make_sop(root: Path, classes: int = 6, images_per_class: int = 3, size: int = 40, seed: int = 0) -> Path:
    """Stanford_Online_Products/Ebay_train.txt and Ebay_test.txt with their images; returns the root."""
    folder, random = root / "Stanford_Online_Products", np.random.default_rng(seed)
    (folder / "bicycle_final").mkdir(parents=True)
    number = 0
    for side, labels in (("train", range(1, classes // 2 + 1)), ("test", range(classes // 2 + 1, classes + 1))):
        lines = ["image_id class_id super_class_id path\n"]
        for label in labels:
            for index in range(images_per_class):
                number += 1
                name = f"bicycle_final/{label}_{index}.JPG"
                picture(label, size, random).save(folder / name, format="JPEG")
                lines.append(f"{number} {label} 1 {name}\n")
        (folder / f"Ebay_{side}.txt").write_text("".join(lines))
    return root


def make_fashion_mnist(root: Path, images: int = 60, classes: int = 10, packed: bool = True, seed: int = 0) -> Path:
    """FashionMNIST/raw/*-ubyte[.gz], IDX files with `images` for training and half as many to test; returns the root."""
    folder, random = root / "FashionMNIST" / "raw", np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for prefix, count in (("train", images), ("t10k", images // 2)):
        labels = (np.arange(count) % classes).astype(np.uint8)
        pixels = np.stack([np.asarray(picture(int(label), 28, random).convert("L")) for label in labels])
        for name, array in ((f"{prefix}-images-idx3-ubyte", pixels), (f"{prefix}-labels-idx1-ubyte", labels)):
            content = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
            path = folder / (name + ".gz" if packed else name)
            path.write_bytes(gzip.compress(content) if packed else content)
    return root
