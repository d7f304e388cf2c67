"""The report: one self-contained page made from the records of an experiment. Start reading in `page.py`."""
