"""Acting for many: observations in, chunks of the newest policy out, in batches."""
