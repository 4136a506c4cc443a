"""Parts of the report page: text made safe, pictures, media beside the page, sections. No figure is computed
here; html_report.py puts the parts together."""
