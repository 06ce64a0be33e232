"""Records of evaluated models, one file each, and the static page that compares those that are comparable."""
