"""From items to batches: order, splits, loading. Import the module you need; this file stays empty."""
