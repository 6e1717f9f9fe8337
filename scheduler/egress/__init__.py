"""Sending what pipelines publish elsewhere: files to a folder or bucket, rows to a database."""
