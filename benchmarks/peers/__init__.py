"""Other codebases, each run by its own Python: these files import nothing of rlgen."""
