"""A puck goes round a post, on either side, in MuJoCo: a task with two right answers."""
