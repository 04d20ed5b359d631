"""Scenes of rendered people with exact CIHP labels, from anybody's folder of MakeHuman assets."""
