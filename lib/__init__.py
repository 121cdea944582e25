"""SharpStudent's library: see docs/architecture.md for the rooms and the order in which they may import each other."""
