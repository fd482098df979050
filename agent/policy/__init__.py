"""Who decides the next lever: rules, a learned policy, fixed schedules, or an external LLM."""
