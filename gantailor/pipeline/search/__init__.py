"""Stage "search": the study, evaluated here, in several processes or on a Ray cluster."""
