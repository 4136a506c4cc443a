"""Its presence puts this folder on the path, so that tests below it find the helpers beside it."""
