"""Why a row fails: the reward classifier, its features, and drift."""
