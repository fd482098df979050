"""The monitoring signal, and what each lever promises and costs."""
