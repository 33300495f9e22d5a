"""One update of a game: losses, regularizers, optimizers, schedules."""
