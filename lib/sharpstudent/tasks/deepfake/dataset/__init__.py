"""A prepared set on disk: its manifest, its shards, near duplicates in it."""
