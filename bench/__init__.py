"""What Wattledger costs, as ratios to a plain Parquet scan of the same bytes in the same run."""
