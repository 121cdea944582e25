"""A prepared set on disk: its manifest, its shards, and near duplicates in it."""
