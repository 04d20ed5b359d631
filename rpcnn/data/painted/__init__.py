"""Scenes of painted people in CIHP's classes, with exact labels: the data set that needs no download."""
