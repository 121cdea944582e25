"""Data sets as users have them on disk, in exactly the forms that their authors give them; the files are empty."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COMPRESSIONS = ("raw", "c23", "c40")
SWAPS = ("Deepfakes", "FaceSwap", "FaceShifter")
REENACTMENTS = ("Face2Face", "NeuralTextures")
PAIRS = {"train": [["000", "003"]], "val": [["010", "011"]], "test": [["020", "021"]]}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def make_ffpp(root: Path, *, compressions: Iterable[str] = COMPRESSIONS, lists: Iterable[str] = PAIRS) -> Path:
    """Three pairs, all six manipulations, actors and DeepFakeDetection."""
    for compression in compressions:
        originals = root / "original_sequences"
        fakes = root / "manipulated_sequences"
        for one, other in (pair for pairs in PAIRS.values() for pair in pairs):
            touch(originals / "youtube" / compression / "videos", f"{one}.mp4", f"{other}.mp4")
            for name in SWAPS + REENACTMENTS:
                touch(fakes / name / compression / "videos", f"{one}_{other}.mp4", f"{other}_{one}.mp4")
        touch(originals / "actors" / compression / "videos", "01__walking.mp4", "02__walking.mp4")
        touch(
            fakes / "DeepFakeDetection" / compression / "videos",
            "01_02__walking_down_street_outside_angry__ABCDEFGH.mp4",
        )
    for split in lists:
        write_json(root / f"{split}.json", PAIRS[split])
    return root


def make_sbi(root: Path, *, frames: int = 3) -> Path:
    base = root / "original_sequences" / "youtube" / "c23"
    for video in (video for pairs in PAIRS.values() for pair in pairs for video in pair):
        for index in range(frames):
            touch(base, f"frames/{video}/{13 * index:03d}.png")
            touch(base, *(f"{kind}/{video}/{13 * index:03d}.npy" for kind in ("landmarks", "retina")))
    for split, pairs in PAIRS.items():
        write_json(root / f"{split}.json", pairs)
    return root


def list_bench_frames(folder: str, *, frames: int = 3, slash: str = "/") -> list[str]:
    return [f"{folder}/{index:03d}.png".replace("/", slash) for index in range(frames)]


def touch_bench(root: Path, folder: str, *, frames: int = 3, masks: bool = False) -> None:
    for index in range(frames):
        touch(root, f"{folder}/{index:03d}.png", f"{folder.replace('/frames/', '/landmarks/')}/{index:03d}.npy")
        if masks:
            touch(root, f"{folder.replace('/frames/', '/masks/')}/{index:03d}.png")


def make_bench(root: Path) -> Path:
    """FaceForensics++ (one file for all, one for Deepfakes alone, with backslashes) and Celeb-DF-v2."""
    youtube = "FaceForensics++/original_sequences/youtube/c23/frames"
    fakes = "FaceForensics++/manipulated_sequences/{}/c23/frames/000_003"
    labels = {"FF-DF": "Deepfakes", "FF-F2F": "Face2Face", "FF-FS": "FaceSwap", "FF-NT": "NeuralTextures"}
    content: dict[str, Any] = {"FF-real": {"train": {"c23": {}}, "val": {"c23": {}}, "test": {"c23": {}}}}
    for split, (pair,) in PAIRS.items():
        for video in pair:
            touch_bench(root, f"{youtube}/{video}")
            frames = list_bench_frames(f"{youtube}/{video}", slash="\\" if split == "val" else "/")
            content["FF-real"][split]["c23"][video] = {"label": "FF-real", "frames": frames}
    for label, name in labels.items():
        folder = fakes.format(name)
        touch_bench(root, folder, masks=True)
        masks = list_bench_frames(folder.replace("/frames/", "/masks/"))
        video = {"label": label, "frames": list_bench_frames(folder, slash="\\"), "masks": masks}
        content[label] = {"train": {"c23": {"000_003": video}}, "val": {"c23": {}}, "test": {"c23": {}}}
    write_json(root / "dataset_json" / "FaceForensics++.json", {"FaceForensics++": content})
    alone = {label: content[label] for label in ("FF-real", "FF-DF")}
    write_json(root / "dataset_json" / "FF-DF.json", {"FF-DF": alone})
    write_json(root / "dataset_json" / "Celeb-DF-v2.json", {"Celeb-DF-v2": make_bench_celeb(root)})
    return root


def make_bench_celeb(root: Path) -> dict[str, Any]:
    """Its test videos stand under val too, as in the published file."""
    videos = {}
    for name, folder in (("id0_0000", "Celeb-real"), ("00170", "YouTube-real"), ("id0_id1_0000", "Celeb-synthesis")):
        path = f"Celeb-DF-v2/{folder}/frames/{name}"
        touch_bench(root, path)
        label = "CelebDFv2_fake" if folder == "Celeb-synthesis" else "CelebDFv2_real"
        videos[name] = {"label": label, "frames": list_bench_frames(path)}
    real = {"id0_0000": videos["id0_0000"]}
    test = {"00170": videos["00170"]}
    fake = {"id0_id1_0000": videos["id0_id1_0000"]}
    return {
        "CelebDFv2_real": {"train": real, "val": test, "test": test},
        "CelebDFv2_fake": {"train": fake, "val": {}, "test": {}},
    }


def make_celebdf(root: Path, *, inner: str = "", youtube: str = "YouTube-real") -> Path:
    touch(root / "Celeb-real" / inner, "id0_0000.mp4", "id0_0001.mp4", "id1_0000.mp4")
    touch(root / youtube / inner, "00170.mp4", "00171.mp4")
    touch(root / "Celeb-synthesis" / inner, "id0_id1_0000.mp4", "id1_id0_0000.mp4")
    lines = ["1 YouTube-real/00170.mp4", "1 Celeb-real/id0_0001.mp4", "0 Celeb-synthesis/id0_id1_0000.mp4"]
    (root / "List_of_testing_videos.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def make_dfdc(root: Path) -> Path:
    for part, (real, fake) in enumerate((("aaaa", "bbbb"), ("cccc", "dddd"))):
        folder = touch(root / f"dfdc_train_part_{part}", f"{real}.mp4", f"{fake}.mp4")
        content = {
            f"{real}.mp4": {"label": "REAL", "split": "train", "original": None},
            f"{fake}.mp4": {"label": "FAKE", "split": "train", "original": f"{real}.mp4"},
        }
        write_json(folder / "metadata.json", content)
    touch(root / "test", "eeee.mp4", "ffff.mp4")
    (root / "test" / "labels.csv").write_text("filename,label\neeee.mp4,0\nffff.mp4,1\n", encoding="utf-8")
    write_json(root / "test" / "metadata.json", {"eeee.mp4": {"augmentations": {}, "is_fake": 0}})
    return root


def make_dfdc_preview(root: Path) -> Path:
    content = {
        "original_videos/643049/643049_A_001.mp4": ("real", "train", "643049", None),
        "method_A/643049/643049_A/1075594_643049_A_001.mp4": ("fake", "train", "643049", "1075594"),
        "method_B/1224068/1224068_C/1044085_1224068_C_001.mp4": ("fake", "test", "1224068", "1044085"),
    }
    touch(root, *content)
    names = ("label", "set", "target_id", "swapped_id")
    entries = {path: {**dict(zip(names, values, strict=True)), "augmentations": []} for path, values in content.items()}
    write_json(root / "dataset.json", entries)
    return root


def make_ffiw(root: Path, *, parts: Iterable[str] = ("train", "val", "test"), inner: str = "") -> Path:
    for number, part in enumerate(parts):
        for branch in ("source", "target", "target_mask"):
            touch(root / branch / part / inner, f"{number:05d}.mp4")
    return root


MAKERS = {
    "ffpp": make_ffpp,
    "ffpp_sbi": make_sbi,
    "deepfakebench": make_bench,
    "celebdf": make_celebdf,
    "dfdc": make_dfdc,
    "dfdc_preview": make_dfdc_preview,
    "ffiw": make_ffiw,
}
