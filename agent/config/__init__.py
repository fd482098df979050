"""What a task.yaml may say. Pydantic only: importing this loads nothing heavy."""
