"""The small frozen records that pass between the rooms."""
