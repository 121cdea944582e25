"""SharpStudent trains small students from frozen teachers; docs/architecture.md is the map of its packages."""

import os

# OpenCV reads this once, when it is loaded: a header that claims 30,000 x 30,000 pixels is refused, not allocated.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
