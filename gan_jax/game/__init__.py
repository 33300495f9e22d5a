"""One step of a game: losses, regularizers, optimizers, schedules, trainer."""
