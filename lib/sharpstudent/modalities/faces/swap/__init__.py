"""Classical face swaps: matching of faces, regions, colour transfer and blending."""
