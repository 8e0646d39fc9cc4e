"""A first configuration from what is there: pictures and a checkpoint are looked at, a commented YAML is written."""
