"""Faces: detect, locate landmarks, crop, self-blend, augment. Pure NumPy and OpenCV, no torch, no config.

Legend of the whole package: image uint8 (H, W, 3) RGB; landmarks float32 (n, 2) x, y in pixels, n = 68 or 81 in dlib's
order; box_xyxy float32 (4,) left, top, right, bottom in pixels; mask float32 (H, W) in 0..1. A pixel's coordinates are
those of its centre: the left-most column is x = 0. All randomness comes from a passed `numpy.random.Generator`.
"""
