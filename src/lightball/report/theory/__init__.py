"""Pages and texts of the experiments in `lightball.theory`."""
