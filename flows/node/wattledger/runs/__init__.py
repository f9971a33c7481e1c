"""Who runs where: records of runs, and the commands that write them."""
