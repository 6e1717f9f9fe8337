"""Pachyderm's pipeline specifications: text to documents, documents to versions, field by field."""
