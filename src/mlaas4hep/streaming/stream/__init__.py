"""Events as shuffled batches: the epoch, and where its runs come from."""
