"""What ``verify`` is made of: which subnets are tried, what a forward does, what its values are, who is to blame."""
