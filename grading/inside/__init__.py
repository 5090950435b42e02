"""What runs inside a sandbox. These files are read as text and mounted there: they import the standard library alone."""
