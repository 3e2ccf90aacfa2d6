"""What stands around the lessons in `notebooks/`, each written by a command: badges for places that run them, a picture of each."""
