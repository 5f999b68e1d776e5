"""Is A better than B? Two or more systems on the same samples: differences, tests, and the answers that changed."""
