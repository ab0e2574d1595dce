"""Black-box search: populations of policies judged by their returns alone."""
