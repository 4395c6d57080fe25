"""The study of Oberdiek, Rottmann and Gottschalk (2018), reproduced through gradscore's public API."""
