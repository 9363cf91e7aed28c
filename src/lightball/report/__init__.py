"""Reports: figures from tables, and pages that hold them in one HTML file.

`figures` turns tables into charts; `page` turns a list of sections into a page. Neither knows of studies.
"""
