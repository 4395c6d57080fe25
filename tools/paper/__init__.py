"""The study of Oberdiek, Rottmann and Gottschalk (2018), retraced through gradscore's public API, step by step."""
