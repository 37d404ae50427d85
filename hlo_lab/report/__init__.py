"""What users read: one document, and one writer per format."""
