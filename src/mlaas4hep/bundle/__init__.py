"""The artefact that training writes and inference reads."""
