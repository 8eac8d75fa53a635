"""The page that people look at: static files, and the calls that it alone needs."""
