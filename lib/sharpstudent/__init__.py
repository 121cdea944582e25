"""The rooms of SharpStudent; docs/architecture.md is the map."""

import os

# OpenCV reads this once, when it is loaded: a header that claims 30,000 x 30,000 pixels is refused, not allocated.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
