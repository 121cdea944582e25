"""Who is seen in a clip, as the file names of data sets tell it; the first is the one whose face is seen.

FaceForensics++ (its dataset/README.md): TARGET_SOURCE.mp4, and TARGET_SOURCE__SCENE__ID.mp4 for DeepFakeDetection,
ACTOR__SCENE.mp4 for its real videos. Swapping puts the source's face on the target; Face2Face and NeuralTextures only
move the target's own face (Rössler et al. 2019, appendix). Celeb-DF: idTARGET_idSOURCE_NUMBER.mp4, the face of the
source on the video idTARGET_NUMBER (its authors' page names no order; users' documentation does).
"""

from __future__ import annotations

import re

REENACTMENTS = ("Face2Face", "NeuralTextures")
ACTORS_FAKE = "DeepFakeDetection"

_PAIR = re.compile(r"(\d{3})_(\d{3})", re.ASCII)
_NUMBER = re.compile(r"\d{3}", re.ASCII)
_ACTOR = re.compile(r"(\d{2})__.+", re.ASCII)
_ACTORS = re.compile(r"(\d{2})_(\d{2})__.+", re.ASCII)
_CELEBRITY = re.compile(r"(id\d+)_\d+", re.ASCII)
_CELEBRITIES = re.compile(r"(id\d+)_(id\d+)_\d+", re.ASCII)


def tell_ffpp_people(stem: str, manipulation: str) -> tuple[str, ...] | None:
    """Video numbers ("071") as people; None for a name of another form. manipulation: "" for a real video."""
    if not manipulation:
        return (stem,) if _NUMBER.fullmatch(stem) else None
    pair = _PAIR.fullmatch(stem)
    if pair is None:
        return None
    target, source = pair.groups()
    return (target, source) if manipulation in REENACTMENTS else (source, target)


def tell_actors(stem: str) -> tuple[str, ...] | None:
    """Actors ("actor_01") of a real or a fake video of DeepFakeDetection; None for a name of another form."""
    both, one = _ACTORS.fullmatch(stem), _ACTOR.fullmatch(stem)
    if both:
        return (f"actor_{both[2]}", f"actor_{both[1]}")
    return (f"actor_{one[1]}",) if one else None


def tell_celebrities(stem: str) -> tuple[str, ...] | None:
    """Celebrities ("id0") of a real or a fake video of Celeb-DF; None for a name of another form."""
    both, one = _CELEBRITIES.fullmatch(stem), _CELEBRITY.fullmatch(stem)
    if both:
        return (both[2], both[1])
    return (one[1],) if one else None
