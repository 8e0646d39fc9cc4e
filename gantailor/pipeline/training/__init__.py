"""The trainings of a run: of its supernet or method, of the narrow net, of a teacher."""
