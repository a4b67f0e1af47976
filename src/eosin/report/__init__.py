"""The report: tables and charts in one self-contained page."""
