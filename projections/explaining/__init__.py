"""Finds where in the log a figure's events stand, and reads them for `streams/audit/explain`."""
