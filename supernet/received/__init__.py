"""What comes from outside: documents are read within bounds, and it is known whose settings they are."""
