"""The words, errors, questions and reports that harness and verifiers share. No torch."""
