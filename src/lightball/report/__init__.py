"""Reports: what a study found, as a page that people look at and as text for the terminal.

`figures` turns tables into charts, and `page` a list of sections into one HTML file; neither knows of studies.
`tables`, `comparison` and `text` say what a study found with them.
"""
