"""What maps are worth: metrics, agreement, chance baselines, case studies."""
