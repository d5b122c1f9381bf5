"""What may answer a question, as data: our strategies and auto_LiRPA. No torch."""
