"""Pages and texts of the experiments in `lightball.reproduce`."""
